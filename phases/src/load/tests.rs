//! The method is proved on servers whose behaviour is known.

use std::convert::Infallible;
use std::future::Future;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::any;
use futures_util::stream;
use tokio::net::TcpListener;

use super::*;

/// Serves on a free port, by a thread of its own that ends with the tests; returns the address.
fn serve<F, R>(answer: impl Fn() -> F + Clone + Send + Sync + 'static) -> String
where
    F: Future<Output = R> + Send + 'static,
    R: IntoResponse,
{
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            sender.send(listener.local_addr().unwrap()).unwrap();
            axum::serve(listener, Router::new().fallback(any(answer))).await.unwrap();
        });
    });
    format!("http://{}/", receiver.recv().unwrap())
}

fn steady(rate: f64, seconds: f64) -> Shape {
    Shape { profile: Profile::Steady, arrivals: Arrivals::Constant, rate, seconds, warm_up_seconds: 0.0, seed: 1 }
}

async fn figures(request: Request, shape: Shape) -> Figures {
    let schedule = shape.schedule();
    let samples = run(request, schedule.clone(), Control::default()).await.unwrap();
    assert_eq!(samples.len(), schedule.times.len(), "every request of the schedule has a sample");
    assert!(samples.is_sorted_by_key(|sample| sample.intended));
    Figures::new(&samples, &shape, &schedule)
}

fn get(url: &str) -> Request {
    Request::get(url.parse().unwrap())
}

fn errors(figures: &Figures) -> Vec<(&str, u64)> {
    figures.errors.iter().map(|(kind, count)| (kind.as_str(), *count)).collect()
}

#[tokio::test]
async fn a_stall_shows_in_the_percentiles() {
    // One second in which nothing is answered. Of 400 requests it holds up 100, the first of them for the whole second:
    // a generator that waits for answers would have sent only one of them.
    let start = Instant::now();
    let stall = (Duration::from_millis(1500), Duration::from_millis(2500));
    let url = serve(move || async move {
        let now = start.elapsed();
        if (stall.0..stall.1).contains(&now) {
            tokio::time::sleep(stall.1 - now).await;
        }
        "ok"
    });
    let figures = figures(get(&url), steady(100.0, 4.0)).await;
    assert_eq!((figures.requests, figures.successes), (400, 400));
    let Times { p50, p95, p99, max, .. } = figures.latency;
    assert!(p50 < 200.0, "{p50}");
    assert!((740.0..1000.0).contains(&p95), "a fifth of the stalled ones: {p95}");
    assert!((900.0..1200.0).contains(&p99), "{p99}");
    assert!((950.0..1300.0).contains(&max), "{max}");
}

#[tokio::test]
async fn each_kind_of_error_is_told_apart() {
    let refused = figures(get("http://127.0.0.1:1/"), steady(50.0, 0.2)).await;
    assert_eq!(errors(&refused), [("not connected", 10)]);
    assert_eq!(refused.latency.count, 0, "what fails at once is no fast answer");

    let busy = serve(|| async { StatusCode::SERVICE_UNAVAILABLE });
    assert_eq!(errors(&figures(get(&busy), steady(50.0, 0.2)).await), [("status 503", 10)]);

    let silent = serve(|| async { std::future::pending::<()>().await });
    let timeout = Duration::from_millis(300);
    let late = figures(Request { timeout, ..get(&silent) }, steady(50.0, 0.2)).await;
    assert_eq!(errors(&late), [("timed out", 10)]);
    assert!((295.0..600.0).contains(&late.latency.p50), "{:?}", late.latency);

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let broken = format!("http://{}/", listener.local_addr().unwrap());
    let server = tokio::spawn(async move { while listener.accept().await.is_ok() {} });
    assert_eq!(errors(&figures(get(&broken), steady(50.0, 0.2)).await), [("connection broken", 10)]);
    server.abort();
}

#[tokio::test]
async fn what_finds_no_room_is_not_sent_and_counts_as_an_error() {
    let silent = serve(|| async { std::future::pending::<()>().await });
    // Longer than a busy machine needs to send them all: one that gives up makes room.
    let timeout = Duration::from_secs(8);
    let figures = figures(Request { timeout, ..get(&silent) }, steady(4000.0, 0.3)).await;
    assert_eq!(figures.requests, 1200);
    assert_eq!(figures.errors.get("not sent, too many in flight"), Some(&(1200 - MOST_IN_FLIGHT as u64)));
}

#[tokio::test]
async fn tokens_of_a_stream_are_timed() {
    let url = serve(|| async {
        let events = stream::unfold(0, |sent| async move {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let event = Bytes::from_static(b"data: {\"choices\":[{\"text\":\"a\"}]}\n\n");
            (sent < 5).then_some((Ok::<_, Infallible>(event), sent + 1))
        });
        ([(header::CONTENT_TYPE, "text/event-stream")], Body::from_stream(events)).into_response()
    });
    let request = Request { answer: Answer::Tokens, ..get(&url) };
    let figures = figures(request.clone(), steady(20.0, 0.5)).await;
    assert_eq!((figures.successes, figures.tokens.unwrap().total), (10, 50));
    let (first, last) = (figures.first_answer.p50, figures.latency.p50);
    assert!((50.0..100.0).contains(&first) && last - first > 180.0, "{first} {last}");
    let between = figures.tokens.unwrap().between.unwrap();
    assert!((49.0..70.0).contains(&between), "{between}");

    let page = serve(|| async { "<html>" });
    let url = page.parse().unwrap();
    let wrong = self::figures(Request { url, ..request }, steady(20.0, 0.2)).await;
    assert_eq!(errors(&wrong), [("wrong answer", 4)]);
}

#[tokio::test]
async fn a_test_can_be_stopped() {
    let silent = serve(|| async { std::future::pending::<()>().await });
    let control = Control::default();
    let test = tokio::spawn(run(get(&silent), steady(10.0, 60.0).schedule(), control.clone()));
    tokio::time::sleep(Duration::from_millis(300)).await;
    let asked = Instant::now();
    control.stop();
    assert!(matches!(test.await.unwrap(), Err(LoadError::Stopped)));
    assert!(asked.elapsed() < Duration::from_secs(1));
}
