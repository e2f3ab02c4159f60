//! The loopback ports of the services.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Declares the ports, each with its usual number.
macro_rules! ports {
    ($($(#[$doc:meta])+ $name:ident = $usual:literal,)+) => {
        /// The loopback ports of the services. 0 means any free one, chosen once and kept.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
        #[serde(deny_unknown_fields, default)]
        pub struct Ports {
            $($(#[$doc])+ pub $name: u16,)+
        }

        impl Default for Ports {
            fn default() -> Self {
                Self { $($name: $usual,)+ }
            }
        }

        impl Ports {
            /// Each port with its name in the configuration.
            pub fn named(self) -> Vec<(&'static str, u16)> {
                vec![$((stringify!($name), self.$name),)+]
            }

            /// The ports that `choose` gives for a name, the wanted port, and the one of `before`.
            ///
            /// # Errors
            /// Those of `choose`.
            pub fn try_map<E>(
                self,
                before: Option<Self>,
                mut choose: impl FnMut(&'static str, u16, Option<u16>) -> Result<u16, E>,
            ) -> Result<Self, E> {
                Ok(Self { $($name: choose(stringify!($name), self.$name, before.map(|before| before.$name))?,)+ })
            }
        }
    };
}

ports! {
    /// The object store's S3 API.
    object_store = 9000,
    /// The object store's console.
    object_store_console = 9001,
    /// PostgreSQL. Not the usual 5432, which belongs to the machine.
    database = 15432,
    /// MLflow.
    tracking = 5000,
    /// The exporter of the GPUs' figures, if there are any.
    gpu_exporter = 9400,
    /// The models: V2 below `/v2/models/NAME`, OpenAI's protocol below `/models/NAME/openai/v1`.
    inference = 8080,
    /// The metrics of the proxy in front of the models.
    inference_metrics = 8405,
    /// The metrics of the controller of the models.
    inference_controller = 8406,
    /// Prometheus.
    monitoring = 9090,
    /// Alertmanager.
    alerts = 9093,
    /// The exporter of the machine's figures.
    node_exporter = 9100,
    /// The exporter of PostgreSQL's figures.
    database_exporter = 9187,
    /// The exporter of the tasks' states and durations.
    task_exporter = 9105,
    /// Grafana.
    dashboards = 3000,
    /// The Prometheus of the HPC side, where it is an embedded one.
    hpc_monitoring = 9190,
    /// The node exporter of the HPC side, likewise.
    hpc_node_exporter = 9200,
}
