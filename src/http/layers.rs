//! What is done to every request and every answer: request id, access log, panics, hosts, other origins, headers.

use std::any::Any;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::http::header::{
    ACCEPT_LANGUAGE, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HOST, RETRY_AFTER,
    STRICT_TRANSPORT_SECURITY, USER_AGENT,
};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use ipnet::IpNet;
use metrics::{counter, histogram};
use tower::util::option_layer;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::cors::{AllowOrigin, CorsLayer};
use tracing::{Instrument, debug, info, info_span};
use uuid::Uuid;

use crate::error::Code;
use crate::http::context::ANTHROPIC_VERSION;
use crate::http::extract::API_KEY;
use crate::http::{ApiError, RequestContext, Surface};
use crate::language::Language;
use crate::telemetry::metrics::{HTTP_DURATION, HTTP_REQUESTS, PANICS};

/// Asked every few seconds by others' programs: logged at a lower level while all is well.
const PROBES: [&str; 5] = ["/health", "/healthz", "/health/ready", "/readyz", "/metrics"];

/// What common client libraries send from a page besides what they must.
const CLIENT_HEADERS: [&str; 16] = [
    "anthropic-beta",
    "anthropic-dangerous-direct-browser-access",
    ANTHROPIC_VERSION,
    "openai-organization",
    "openai-project",
    API_KEY,
    "x-stainless-arch",
    "x-stainless-async",
    "x-stainless-helper-method",
    "x-stainless-lang",
    "x-stainless-os",
    "x-stainless-package-version",
    "x-stainless-retry-count",
    "x-stainless-runtime",
    "x-stainless-runtime-version",
    "x-stainless-timeout",
];

/// How long a browser may remember what an origin may do.
const PREFLIGHT_AGE: Duration = Duration::from_secs(600);

/// Most bytes of all headers, names and values together. Below what the reader of heads takes, so that it is said here, in
/// our shape, and not there, without a body.
pub const MOST_HEADER_BYTES: usize = 32 * 1024;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Where Anthropic's clients look for the same.
const ANTHROPIC_REQUEST_ID: HeaderName = HeaderName::from_static("request-id");

/// Who asks and who is believed.
#[derive(Debug, Clone)]
pub struct Neighbourhood {
    /// What is listened on: on a loopback address only requests to a local name are answered, so that a web page cannot
    /// reach the server through a name of its own.
    pub address: IpAddr,
    /// Proxies whose `X-Forwarded-For` and `X-Forwarded-Proto` are believed.
    pub trusted_proxies: Arc<[IpNet]>,
    /// Web origins whose pages may call this server.
    pub allowed_origins: Arc<[String]>,
}

/// The address at the other end of a connection, as the accept loop found it.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub IpAddr);

/// Wraps all routes.
pub fn wrap<S: Clone + Send + Sync + 'static>(routes: Router<S>, neighbourhood: Neighbourhood) -> Router<S> {
    routes
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(CatchPanicLayer::custom(panicked))
        .layer(option_layer(cors(&neighbourhood.allowed_origins)))
        .layer(from_fn_with_state(neighbourhood.address.is_loopback(), check_host))
        .layer(from_fn(check_headers))
        .layer(from_fn_with_state(neighbourhood, observe))
}

/// Lets the pages of these origins, and of no others, call the server with a token. Never with credentials of the
/// browser's own: there are none here. Without any origin nothing is said to anybody.
fn cors(origins: &Arc<[String]>) -> Option<CorsLayer> {
    if origins.is_empty() {
        return None;
    }
    let origins = Arc::clone(origins);
    let is_allowed = move |origin: &HeaderValue, _: &Parts| {
        origins.iter().any(|allowed| allowed.as_bytes() == origin.as_bytes())
    };
    let own = [AUTHORIZATION, CONTENT_TYPE, ACCEPT_LANGUAGE, REQUEST_ID];
    let headers = own.into_iter().chain(CLIENT_HEADERS.map(HeaderName::from_static));
    let layer = CorsLayer::new()
        .allow_origin(AllowOrigin::predicate(is_allowed))
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE])
        .allow_headers(headers.collect::<Vec<_>>())
        .expose_headers([REQUEST_ID, HeaderName::from_static("x-error-code"), RETRY_AFTER])
        .max_age(PREFLIGHT_AGE);
    Some(layer)
}

/// What Ollama's clients may look for and do not find, and what to use instead.
const NOT_OLLAMAS: [(&str, &str); 6] = [
    ("/api/pull", "an administrator registers models: POST /api/v1/admin/models"),
    ("/api/create", "an administrator registers models: POST /api/v1/admin/models"),
    ("/api/blobs", "an administrator registers models by where they come from: POST /api/v1/admin/models"),
    ("/api/copy", "an administrator gives a model another name: PUT /api/v1/admin/models/{modelId}"),
    ("/api/delete", "an administrator takes models away: DELETE /api/v1/admin/models/{modelId}"),
    ("/api/push", "models are not published from here"),
];

async fn not_found(uri: Uri) -> ApiError {
    let path: String = uri.path().chars().take(200).collect();
    let is_or_is_below =
        |parent: &str| path.strip_prefix(parent).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    let instead = NOT_OLLAMAS.iter().find(|(known, _)| is_or_is_below(known));
    let instead = instead.map_or_else(String::new, |(_, instead)| format!("; {instead}"));
    ApiError::new(Code::NotFound, format!("there is nothing at {path}{instead}"))
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
    let route = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let route = route.unwrap_or_else(|| "other".to_owned());
    let context = Arc::new(context(&neighbourhood, &request, &id, &route));
    let surface = context.surface;
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let is_behind_tls = is_behind_tls(&neighbourhood, &request);
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
    if surface == Surface::Anthropic {
        response.headers_mut().insert(ANTHROPIC_REQUEST_ID, id.clone());
    }
    put_headers(response.headers_mut(), id);
    if is_behind_tls {
        response
            .headers_mut()
            .insert(STRICT_TRANSPORT_SECURITY, HeaderValue::from_static("max-age=31536000"));
    }
    response
}

fn context(
    neighbourhood: &Neighbourhood,
    request: &Request,
    id: &HeaderValue,
    route: &str,
) -> RequestContext {
    let text = |name: HeaderName| request.headers().get(name).and_then(|value| value.to_str().ok());
    RequestContext {
        id: id.to_str().unwrap_or_default().to_owned(),
        language: Language::of_accept_language(text(ACCEPT_LANGUAGE).unwrap_or_default()),
        surface: Surface::of(request.uri().path(), request.headers()),
        request: format!("{} {route}", request.method()),
        address: client_address(peer(request), request.headers(), &neighbourhood.trusted_proxies),
        user_agent: text(USER_AGENT).unwrap_or_default().chars().take(256).collect(),
    }
}

fn peer(request: &Request) -> IpAddr {
    let peer = request.extensions().get::<Peer>().map_or(IpAddr::from([127, 0, 0, 1]), |peer| peer.0);
    peer.to_canonical()
}

/// Whether a trusted proxy says that the client speaks to it by TLS. Where there are several, the last one counts: it
/// is the one that was asked to be trusted.
fn is_behind_tls(neighbourhood: &Neighbourhood, request: &Request) -> bool {
    let peer = peer(request);
    let said = request.headers().get_all("x-forwarded-proto").iter().next_back();
    let last = said.and_then(|value| value.to_str().ok()).and_then(|text| text.rsplit(',').next());
    last.is_some_and(|scheme| scheme.trim().eq_ignore_ascii_case("https"))
        && neighbourhood.trusted_proxies.iter().any(|network| network.contains(&peer))
}

/// The client's address: the peer's, unless that is a trusted proxy; then the last address of `X-Forwarded-For` that is
/// not one itself. If what a trusted proxy says cannot be read nobody knows it: the unspecified address stands for that.
fn client_address(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let is_trusted =
        |address: IpAddr| trusted.iter().any(|network| network.contains(&address.to_canonical()));
    let mut address = peer;
    let all = headers.get_all("x-forwarded-for").iter().map(|value| value.to_str().unwrap_or("unknown"));
    let hops: Vec<&str> = all.flat_map(|value| value.split(',')).map(str::trim).collect();
    for hop in hops.iter().rev() {
        if !is_trusted(address) {
            break;
        }
        let Some(before) = read_address(hop) else { return Ipv6Addr::UNSPECIFIED.into() };
        address = before.to_canonical();
    }
    address
}

/// An address as proxies write it: with a port or without, one of version 6 in brackets or without.
fn read_address(text: &str) -> Option<IpAddr> {
    let in_brackets = || text.strip_prefix('[')?.strip_suffix(']')?.parse::<Ipv6Addr>().ok();
    let with_port = || text.parse::<SocketAddr>().ok().map(|address| address.ip());
    text.parse().ok().or_else(with_port).or_else(|| in_brackets().map(IpAddr::from))
}

fn put_headers(headers: &mut HeaderMap, id: HeaderValue) {
    headers.insert(REQUEST_ID, id);
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("content-security-policy", "default-src 'none'; frame-ancestors 'none'"),
        ("cross-origin-opener-policy", "same-origin"),
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

async fn check_headers(request: Request, next: Next) -> Response {
    let bytes: usize = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    if bytes > MOST_HEADER_BYTES {
        let message = format!("the headers have {bytes} bytes; {MOST_HEADER_BYTES} are the most");
        return ApiError::new(Code::HeadersTooLarge, message).into_response();
    }
    next.run(request).await
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
        wrap(
            routes,
            Neighbourhood { address, trusted_proxies: Arc::from([]), allowed_origins: Arc::from([]) },
        )
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
    async fn c4_a_panic_is_an_answer_in_json_with_all_headers_and_tells_nothing() {
        let (status, headers, body) = ask("/broken", &[]).await;
        assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
        for name in ["content-security-policy", "x-content-type-options", "referrer-policy", "cache-control"]
        {
            assert_eq!(headers.get(name), ask("/fine", &[]).await.1.get(name), "{name}");
        }
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
    async fn too_many_bytes_of_headers_are_refused_in_the_usual_shape() {
        // Those that every request has are counted too.
        let (most, more) = ("x".repeat(MOST_HEADER_BYTES - 500), "x".repeat(MOST_HEADER_BYTES));
        assert_eq!(ask("/fine", &[("large", &most)]).await.0, StatusCode::OK);
        let (status, headers, body) = ask("/fine", &[("large", &more)]).await;
        assert_eq!((status.as_u16(), headers["x-error-code"].as_bytes()), (431, &b"43101"[..]));
        assert!(headers.contains_key("x-request-id") && body.contains("headers_too_large"), "{body}");
        let half = "x".repeat(MOST_HEADER_BYTES / 2);
        assert_eq!(ask("/fine", &[("one", &half), ("two", &half)]).await.0.as_u16(), 431);
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
