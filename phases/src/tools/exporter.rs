//! A small HTTP server for Prometheus: metrics are collected anew at each scrape.

use std::future::Future;
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::routing::get;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// The content type of the text format, version 1.0.0 of OpenMetrics.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Who scrapes more than this at once waits.
const MOST_AT_ONCE: usize = 4;

/// Serves `/metrics` on a loopback port until the process is ended; `collect` fills a registry for each scrape.
///
/// # Errors
/// The port is taken.
pub async fn serve<C, F>(port: u16, collect: C) -> io::Result<()>
where
    C: Fn() -> F + Send + Sync + 'static,
    F: Future<Output = Result<Registry, String>> + Send,
{
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    axum::serve(listener, router(collect)).await
}

/// The routes of an exporter, for a server that has others too.
pub fn router<C, F>(collect: C) -> Router
where
    C: Fn() -> F + Send + Sync + 'static,
    F: Future<Output = Result<Registry, String>> + Send,
{
    let (collect, gate) = (Arc::new(collect), Arc::new(Semaphore::new(MOST_AT_ONCE)));
    let metrics = move || {
        let (collect, gate) = (Arc::clone(&collect), Arc::clone(&gate));
        async move {
            let _turn = gate.acquire().await.map_err(|_| unavailable("the exporter ends".to_owned()))?;
            let registry = collect().await.map_err(unavailable)?;
            let mut text = String::new();
            encode(&mut text, &registry).map_err(|error| unavailable(error.to_string()))?;
            Ok::<_, (StatusCode, String)>(([(header::CONTENT_TYPE, OPEN_METRICS)], text))
        }
    };
    Router::new().route("/metrics", get(metrics)).route("/healthz", get(|| async { "ok" }))
}

fn unavailable(why: String) -> (StatusCode, String) {
    (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n"))
}

/// Runs an exporter as the whole of a process; returns when it cannot serve, and says why in the service's log.
pub fn main(exporter: impl Future<Output = io::Result<()>>) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime.and_then(|runtime| runtime.block_on(exporter)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody is left to tell when that fails too.
            let _ = writeln!(io::stderr(), "taskrun: serve metrics: {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use prometheus_client::metrics::gauge::Gauge;

    use super::*;
    use crate::tools::ports::any_free;

    #[tokio::test]
    async fn metrics_are_collected_at_each_scrape() {
        let (port, scrapes) = (any_free().unwrap(), Arc::new(AtomicU64::new(0)));
        let server = tokio::spawn(serve(port, move || {
            let number = scrapes.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1;
            async move {
                if number > 2 {
                    return Err("the device is gone".to_owned());
                }
                let (mut registry, gauge) = (Registry::default(), Gauge::<i64>::default());
                gauge.set(number.cast_signed());
                registry.register("scrapes", "Scrapes so far", gauge);
                Ok(registry)
            }
        }));
        let url = format!("http://127.0.0.1:{port}/metrics");
        let mut answer = reqwest::get(&url).await;
        for _ in 0..50 {
            if answer.is_ok() {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            answer = reqwest::get(&url).await;
        }
        let first = answer.unwrap().text().await.unwrap();
        assert!(first.contains("scrapes 1\n") && first.ends_with("# EOF\n"), "{first}");
        assert!(reqwest::get(&url).await.unwrap().text().await.unwrap().contains("scrapes 2\n"));
        let third = reqwest::get(&url).await.unwrap();
        assert_eq!(third.status(), 503);
        assert_eq!(third.text().await.unwrap(), "the device is gone\n");
        server.abort();
    }
}
