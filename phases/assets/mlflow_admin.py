"""What MLflow's server has no request for, done on its database.

The URI is read from the environment: an argument would show its password to everybody on the machine.
"""

import os
import sys

from alembic.runtime.migration import MigrationContext
from mlflow.entities import ViewType
from mlflow.store.db import utils
from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore as Registry
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore as Tracking

OTHER_SCHEMA = 3

URI = os.environ["MLFLOW_BACKEND_STORE_URI"]


def migrate(older):
    """Brings the schema to the version of this MLflow; one of another version only if `older` is "upgrade"."""
    engine = utils.create_sqlalchemy_engine_with_retry(URI)
    with engine.connect() as connection:
        there = MigrationContext.configure(connection).get_current_revision()
    newest = utils._get_latest_schema_revision()
    if there not in (None, newest) and older != "upgrade":
        print(f"MLflow's schema {there} would become {newest}", file=sys.stderr)
        sys.exit(OTHER_SCHEMA)
    utils._safe_initialize_tables(engine)
    utils._upgrade_db(engine)


def forget(prefix):
    """Removes models and experiments for good; the server only marks an experiment as deleted."""
    registry, tracking = Registry(URI), Tracking(URI, "mlflow-artifacts:/")
    named = f"name LIKE '{prefix}%'"
    for model in registry.search_registered_models(filter_string=named):
        registry.delete_registered_model(model.name)
    for experiment in tracking.search_experiments(view_type=ViewType.ALL, filter_string=named):
        if experiment.lifecycle_stage == "active":
            tracking.delete_experiment(experiment.experiment_id)
        for run in tracking.search_runs([experiment.experiment_id], None, ViewType.ALL):
            tracking._hard_delete_run(run.info.run_id)
        tracking._hard_delete_experiment(experiment.experiment_id)


{"migrate": migrate, "forget": forget}[sys.argv[1]](*sys.argv[2:])
