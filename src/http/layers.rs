//! What is done to every request and every answer: request id, access log, panics, hosts, headers.

use std::any::Any;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::http::header::{ACCEPT_LANGUAGE, CACHE_CONTROL, HOST, USER_AGENT};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Uri};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use ipnet::IpNet;
use metrics::{counter, histogram};
use tower_http::catch_panic::CatchPanicLayer;
use tracing::{Instrument, debug, info, info_span};
use uuid::Uuid;

use crate::error::Code;
use crate::http::{ApiError, RequestContext, Surface};
use crate::language::Language;
use crate::telemetry::metrics::{HTTP_DURATION, HTTP_REQUESTS, PANICS};

/// Asked every few seconds by others' programs: logged at a lower level while all is well.
const PROBES: [&str; 5] = ["/health", "/healthz", "/health/ready", "/readyz", "/metrics"];

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Who asks and who is believed.
#[derive(Debug, Clone)]
pub struct Neighbourhood {
    /// What is listened on: on a loopback address only requests to a local name are answered, so that a web page cannot
    /// reach the server through a name of its own.
    pub address: IpAddr,
    /// Proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Arc<[IpNet]>,
}

/// The address at the other end of a connection, as the accept loop found it.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub IpAddr);

/// Wraps all routes.
pub fn wrap<S: Clone + Send + Sync + 'static>(routes: Router<S>, neighbourhood: Neighbourhood) -> Router<S> {
    routes
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(from_fn_with_state(neighbourhood.address.is_loopback(), check_host))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(from_fn_with_state(neighbourhood, observe))
}

async fn not_found(uri: Uri) -> ApiError {
    let path: String = uri.path().chars().take(200).collect();
    ApiError::new(Code::NotFound, format!("there is nothing at {path}"))
}

async fn method_not_allowed() -> ApiError {
    ApiError::of(Code::MethodNotAllowed)
}

fn panicked(panic: Box<dyn Any + Send + 'static>) -> Response<Body> {
    let message = panic.downcast_ref::<&str>().copied();
    let message = message.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("?");
    tracing::error!(message, "a handler panicked");
    counter!(PANICS).increment(1);
    ApiError::internal().into_response()
}

/// Gives the request its id, logs it, measures it, and puts the headers on the answer that all answers have.
async fn observe(State(neighbourhood): State<Neighbourhood>, mut request: Request, next: Next) -> Response {
    let id = request_id(request.headers());
    request.headers_mut().insert(REQUEST_ID, id.clone());
    let context = Arc::new(context(&neighbourhood, &request, &id));
    let route = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let route = route.unwrap_or_else(|| "other".to_owned());
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let span = info_span!("request", id = id.to_str().unwrap_or_default());
    let begun = Instant::now();

    let mut response = context.scope(next.run(request).instrument(span.clone())).await;

    let (status, took) = (response.status().as_u16(), begun.elapsed());
    let milliseconds = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    let is_probe = PROBES.contains(&route.as_str()) && status < 400;
    span.in_scope(|| match is_probe {
        true => debug!(%method, path, status, milliseconds, "answered"),
        false => info!(%method, path, status, milliseconds, "answered"),
    });
    counter!(HTTP_REQUESTS, "route" => route.clone(), "code" => status.to_string()).increment(1);
    histogram!(HTTP_DURATION, "route" => route).record(took);
    put_headers(response.headers_mut(), id);
    response
}

fn context(neighbourhood: &Neighbourhood, request: &Request, id: &HeaderValue) -> RequestContext {
    let text = |name: HeaderName| request.headers().get(name).and_then(|value| value.to_str().ok());
    let peer = request.extensions().get::<Peer>().map_or(IpAddr::from([127, 0, 0, 1]), |peer| peer.0);
    RequestContext {
        id: id.to_str().unwrap_or_default().to_owned(),
        language: Language::of_accept_language(text(ACCEPT_LANGUAGE).unwrap_or_default()),
        surface: Surface::of_path(request.uri().path()),
        address: client_address(peer, request.headers(), &neighbourhood.trusted_proxies),
        user_agent: text(USER_AGENT).unwrap_or_default().chars().take(256).collect(),
    }
}

/// The client's address: the peer's, unless that is a trusted proxy; then the last address of `X-Forwarded-For` that is
/// not one itself.
fn client_address(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let is_trusted =
        |address: IpAddr| trusted.iter().any(|network| network.contains(&address.to_canonical()));
    let mut address = peer.to_canonical();
    let all = headers.get_all("x-forwarded-for").iter().filter_map(|value| value.to_str().ok());
    let hops: Vec<&str> = all.flat_map(|value| value.split(',')).map(str::trim).collect();
    for hop in hops.iter().rev() {
        if !is_trusted(address) {
            break;
        }
        let Ok(before) = hop.parse::<IpAddr>() else { break };
        address = before.to_canonical();
    }
    address
}

fn put_headers(headers: &mut HeaderMap, id: HeaderValue) {
    headers.insert(REQUEST_ID, id);
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("content-security-policy", "default-src 'none'; frame-ancestors 'none'"),
        ("cross-origin-resource-policy", "same-origin"),
    ] {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
}

/// The client's own id if it is a harmless one, else a new one.
fn request_id(headers: &HeaderMap) -> HeaderValue {
    let harmless = |id: &&HeaderValue| {
        let bytes = id.as_bytes();
        (1..=128).contains(&bytes.len())
            && bytes.iter().all(|b| b.is_ascii_alphanumeric() || b"-_.:".contains(b))
    };
    if let Some(given) = headers.get(REQUEST_ID).filter(harmless) {
        return given.clone();
    }
    let fresh = format!("req_{}", Uuid::now_v7().simple());
    HeaderValue::from_str(&fresh).unwrap_or(HeaderValue::from_static("req_unknown"))
}

async fn check_host(State(loopback): State<bool>, request: Request, next: Next) -> Response {
    if loopback && !names_this_machine(&request) {
        let message = "this server answers to localhost only; to give it another name, let it listen on another address";
        return ApiError::new(Code::Misdirected, message).into_response();
    }
    next.run(request).await
}

fn names_this_machine(request: &Request) -> bool {
    let from_uri = request.uri().host();
    let from_header = || request.headers().get(HOST).and_then(|host| host.to_str().ok()).map(without_port);
    // HTTP/1.0 clients and health checks may send none: no browser does that.
    let Some(host) = from_uri.or_else(from_header) else { return !request.headers().contains_key(HOST) };
    let host = host.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.');
    let local = host.eq_ignore_ascii_case("localhost") || host.to_ascii_lowercase().ends_with(".localhost");
    local || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !name.ends_with(':') => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use axum::http::StatusCode;
    use axum::routing::get;
    use tower::ServiceExt;

    use super::*;

    fn routes() -> Router {
        async fn broken() -> &'static str {
            panic!("forced by the test")
        }
        let routes = Router::new().route("/fine", get(|| async { "fine" })).route("/broken", get(broken));
        let address = IpAddr::from([127, 0, 0, 1]);
        wrap(routes, Neighbourhood { address, trusted_proxies: Arc::from([]) })
    }

    async fn ask(path: &str, headers: &[(&str, &str)]) -> (StatusCode, HeaderMap, String) {
        let mut request = Request::builder().uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::empty()).expect("the test's request is right");
        let response = routes().oneshot(request).await.expect("it cannot fail");
        let (parts, body) = response.into_parts();
        let body = axum::body::to_bytes(body, 1 << 20).await.expect("it is short");
        (parts.status, parts.headers, String::from_utf8_lossy(&body).into_owned())
    }

    #[tokio::test]
    async fn a_panic_is_an_answer_in_json_and_tells_nothing() {
        let (status, headers, body) = ask("/broken", &[]).await;
        assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
        assert!(headers.contains_key("x-request-id") && headers["x-error-code"] == "50001");
        assert!(body.contains("\"code\":\"internal_error\"") && !body.contains("forced"), "{body}");
    }

    #[tokio::test]
    async fn unknown_urls_and_methods_have_the_shape_of_errors() {
        let (status, _, body) = ask("/nowhere", &[]).await;
        assert_eq!(status, StatusCode::NOT_FOUND);
        assert!(body.starts_with("{\"error\":{"), "{body}");
    }

    #[tokio::test]
    async fn only_local_names_reach_a_loopback_address() {
        for host in [
            "localhost",
            "localhost:8080",
            "127.0.0.1:1",
            "[::1]:80",
            "a.localhost",
            "LOCALHOST.",
            "127.9.9.9",
        ] {
            assert_eq!(ask("/fine", &[("host", host)]).await.0, StatusCode::OK, "{host}");
        }
        for host in [
            "evil.example",
            "localhost.evil.example",
            "10.0.0.1",
            "127.0.0.1.evil.example",
            "",
            "[::2]",
            "::",
        ] {
            assert_eq!(ask("/fine", &[("host", host)]).await.0, StatusCode::MISDIRECTED_REQUEST, "{host}");
        }
    }

    #[tokio::test]
    async fn a_harmless_request_id_is_kept_and_another_replaced() {
        let (_, headers, _) = ask("/fine", &[("x-request-id", "abc-1.2:3_4")]).await;
        assert_eq!(headers["x-request-id"], "abc-1.2:3_4");
        let long = "a".repeat(129);
        for id in ["", "a b", "<script>", long.as_str()] {
            let (_, headers, _) = ask("/fine", &[("x-request-id", id)]).await;
            assert!(headers["x-request-id"].to_str().expect("text").starts_with("req_"), "{id}");
        }
    }

    #[tokio::test]
    async fn answers_carry_the_headers_of_safety_and_no_cors() {
        let (_, headers, _) = ask("/fine", &[("origin", "https://evil.example")]).await;
        assert_eq!(headers["x-content-type-options"], "nosniff");
        assert_eq!(headers["cache-control"], "no-store");
        assert!(!headers.contains_key("access-control-allow-origin"));
    }
}
