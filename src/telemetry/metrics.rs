//! Every metric's name, unit and help, in one table; and the page that shows them.
//!
//! `vllm:*` names are what routers and autoscalers read. Each of their gauges has exactly one series, over all models:
//! readers take the first or the last series of a family. What belongs to one model is under `sconce_*`.

use std::fmt::Write;
use std::sync::OnceLock;

use metrics::{Unit, describe_counter, describe_histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

/// Time from admission to the first token.
pub const TIME_TO_FIRST_TOKEN: &str = "vllm:time_to_first_token_seconds";
/// Time between two tokens of a stream.
pub const INTER_TOKEN_LATENCY: &str = "vllm:inter_token_latency_seconds";
/// The same by its older name.
pub const TIME_PER_OUTPUT_TOKEN: &str = "vllm:time_per_output_token_seconds";
/// Time from admission to the end.
pub const E2E_LATENCY: &str = "vllm:e2e_request_latency_seconds";
/// Tokens of a request's prompt.
pub const REQUEST_PROMPT_TOKENS: &str = "vllm:request_prompt_tokens";
/// Tokens of a request's answers.
pub const REQUEST_GENERATION_TOKENS: &str = "vllm:request_generation_tokens";
/// Most tokens a request's answers may have.
pub const REQUEST_MAX_TOKENS: &str = "vllm:request_params_max_tokens";
/// Requests admitted, by model.
pub const INCOMING_REQUESTS: &str = "vllm:num_incoming_requests_total";
/// Prompt tokens in all.
pub const PROMPT_TOKENS: &str = "vllm:prompt_tokens_total";
/// Generated tokens in all.
pub const GENERATION_TOKENS: &str = "vllm:generation_tokens_total";
/// Requests by how they ended.
pub const REQUEST_SUCCESS: &str = "vllm:request_success_total";
/// HTTP requests by route and status.
pub const HTTP_REQUESTS: &str = "sconce_http_requests_total";
/// Time to the head of an HTTP answer.
pub const HTTP_DURATION: &str = "sconce_http_request_duration_seconds";
/// Handlers that panicked.
pub const PANICS: &str = "sconce_panics_total";
/// Streams cut because their client did not read.
pub const SLOW_CLIENTS: &str = "sconce_slow_clients_total";

/// Answers that were to be kept and could not be, by their kind.
pub const NOT_KEPT: &str = "sconce_answers_not_kept_total";

/// Lines of batches that got their result, by what it is.
pub const BATCH_LINES: &str = "sconce_batch_lines_total";

/// Requests waiting, over all models.
pub const WAITING: &str = "vllm:num_requests_waiting";
/// Sequences running, over all models.
pub const RUNNING: &str = "vllm:num_requests_running";
/// Share of cache blocks held, 0 to 1.
pub const KV_USAGE: &str = "vllm:kv_cache_usage_perc";
/// The same by its older name.
pub const KV_USAGE_OLD: &str = "vllm:gpu_cache_usage_perc";
/// Shape of the cache, in its labels.
pub const CACHE_CONFIG: &str = "vllm:cache_config_info";
/// Adapters, in its labels; readers fail where it is missing.
pub const LORA_INFO: &str = "vllm:lora_requests_info";
/// Tokens looked up in the prefix cache.
pub const PREFIX_QUERIES: &str = "vllm:prefix_cache_queries_total";
/// Tokens found there.
pub const PREFIX_HITS: &str = "vllm:prefix_cache_hits_total";
/// The same by its older name.
pub const PREFIX_QUERIES_OLD: &str = "vllm:gpu_prefix_cache_queries_total";
/// The same by its older name.
pub const PREFIX_HITS_OLD: &str = "vllm:gpu_prefix_cache_hits_total";
/// Whether a model is in this state (label `state`).
pub const MODEL_STATE: &str = "sconce_model_state";
/// Cache blocks no sequence holds, by model.
pub const FREE_BLOCKS: &str = "sconce_kv_blocks_free";
/// Cache blocks, by model.
pub const TOTAL_BLOCKS: &str = "sconce_kv_blocks";
/// Engine steps, by model.
pub const STEPS: &str = "sconce_engine_steps_total";
/// Tokens guessed and run, by model.
pub const DRAFTED_TOKENS: &str = "sconce_drafted_tokens_total";
/// Of those, the ones that were right, by model.
pub const ACCEPTED_TOKENS: &str = "sconce_accepted_tokens_total";
/// Sequences that gave their blocks back, by model.
pub const PREEMPTIONS: &str = "sconce_preemptions_total";

enum Kind {
    Counter,
    Gauge,
    Histogram(&'static [f64]),
}

struct Metric {
    name: &'static str,
    kind: Kind,
    unit: Unit,
    help: &'static str,
}

const FIRST_TOKEN_SECONDS: &[f64] = &[
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0,
    80.0, 160.0, 640.0, 2560.0,
];
const TOKEN_SECONDS: &[f64] = &[
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
];
const REQUEST_SECONDS: &[f64] = &[
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0,
    960.0, 1920.0, 7680.0,
];
const HTTP_SECONDS: &[f64] = &[0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 60.0];
const TOKENS: &[f64] = &[
    1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0, 10000.0, 20000.0, 50000.0,
    100000.0,
];

const fn counter(name: &'static str, help: &'static str) -> Metric {
    Metric { name, kind: Kind::Counter, unit: Unit::Count, help }
}

const fn gauge(name: &'static str, help: &'static str) -> Metric {
    Metric { name, kind: Kind::Gauge, unit: Unit::Count, help }
}

const fn seconds(name: &'static str, buckets: &'static [f64], help: &'static str) -> Metric {
    Metric { name, kind: Kind::Histogram(buckets), unit: Unit::Seconds, help }
}

const fn tokens(name: &'static str, help: &'static str) -> Metric {
    Metric { name, kind: Kind::Histogram(TOKENS), unit: Unit::Count, help }
}

/// The table.
const METRICS: &[Metric] = &[
    seconds(TIME_TO_FIRST_TOKEN, FIRST_TOKEN_SECONDS, "Time from admission to the first token."),
    seconds(INTER_TOKEN_LATENCY, TOKEN_SECONDS, "Time between two tokens of a request."),
    seconds(TIME_PER_OUTPUT_TOKEN, TOKEN_SECONDS, "Time between two tokens of a request."),
    seconds(E2E_LATENCY, REQUEST_SECONDS, "Time from admission to the end of a request."),
    tokens(REQUEST_PROMPT_TOKENS, "Tokens of a request's prompt."),
    tokens(REQUEST_GENERATION_TOKENS, "Tokens generated for a request."),
    tokens(REQUEST_MAX_TOKENS, "Most tokens an answer to a request may have."),
    counter(INCOMING_REQUESTS, "Requests that began, by model."),
    counter(PROMPT_TOKENS, "Prompt tokens."),
    counter(GENERATION_TOKENS, "Generated tokens."),
    counter(REQUEST_SUCCESS, "Requests by how they ended."),
    counter(HTTP_REQUESTS, "HTTP requests by route and status."),
    seconds(HTTP_DURATION, HTTP_SECONDS, "Time to the head of an HTTP answer, by route."),
    counter(PANICS, "Handlers that panicked."),
    counter(SLOW_CLIENTS, "Streams cut because their client did not read."),
    counter(NOT_KEPT, "Answers that were to be kept and could not be, by kind."),
    counter(BATCH_LINES, "Lines of batches that got their result."),
    gauge(WAITING, "Requests waiting, over all models."),
    gauge(RUNNING, "Sequences running, over all models."),
    gauge(KV_USAGE, "Share of cache blocks held, 0 to 1, over all models."),
    gauge(KV_USAGE_OLD, "Share of cache blocks held, 0 to 1, over all models."),
    gauge(CACHE_CONFIG, "Shape of the cache, in its labels."),
    gauge(LORA_INFO, "Adapters in use, in its labels."),
    counter(PREFIX_QUERIES, "Prompt tokens looked up in the prefix cache."),
    counter(PREFIX_HITS, "Prompt tokens found in the prefix cache."),
    counter(PREFIX_QUERIES_OLD, "Prompt tokens looked up in the prefix cache."),
    counter(PREFIX_HITS_OLD, "Prompt tokens found in the prefix cache."),
    gauge(MODEL_STATE, "1 for the state a model is in."),
    gauge(FREE_BLOCKS, "Cache blocks no sequence holds."),
    gauge(TOTAL_BLOCKS, "Cache blocks."),
    counter(STEPS, "Steps of the engine."),
    counter(DRAFTED_TOKENS, "Tokens guessed and run by the engine."),
    counter(ACCEPTED_TOKENS, "Guessed tokens that were right."),
    counter(PREEMPTIONS, "Sequences that gave their blocks back to be recomputed."),
];

/// Renders what was measured so far.
#[derive(Clone)]
pub struct MetricsPage(PrometheusHandle);

impl MetricsPage {
    /// The page of this process; the first call begins to collect.
    pub fn of_process() -> Self {
        static PAGE: OnceLock<PrometheusHandle> = OnceLock::new();
        Self(PAGE.get_or_init(collect).clone())
    }

    /// In Prometheus' text format: what was counted so far, and how things stand `now`. Samples of one name follow each
    /// other.
    pub fn render(&self, now: &[Sample]) -> String {
        let mut page = self.0.render();
        let mut last = "";
        for sample in now {
            if sample.name != last {
                write_head(&mut page, sample.name);
                last = sample.name;
            }
            write_sample(&mut page, sample);
        }
        page
    }

    /// Folds what histograms gathered; to be called every few seconds.
    pub fn tidy(&self) {
        self.0.run_upkeep();
    }
}

fn collect() -> PrometheusHandle {
    let mut builder = PrometheusBuilder::new();
    for metric in METRICS {
        if let Kind::Histogram(buckets) = metric.kind {
            builder = match builder.set_buckets_for_metric(Matcher::Full(metric.name.to_owned()), buckets) {
                Ok(builder) => builder,
                // Only an empty list of buckets is refused, and the table has none.
                Err(_) => PrometheusBuilder::new(),
            };
        }
    }
    let recorder = builder.build_recorder();
    let handle = recorder.handle();
    // Somebody else's recorder (a test's) may be there already; then the page stays empty.
    let _ = metrics::set_global_recorder(recorder);
    for metric in METRICS {
        describe(metric);
    }
    handle
}

fn describe(metric: &Metric) {
    match metric.kind {
        Kind::Counter => describe_counter!(metric.name, metric.unit, metric.help),
        Kind::Histogram(_) => describe_histogram!(metric.name, metric.unit, metric.help),
        // Gauges are not kept but looked up when the page is asked for.
        Kind::Gauge => {}
    }
}

/// How something stands at the moment; for what is looked up rather than counted.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// A name of the table.
    pub name: &'static str,
    /// What tells it from others of its name.
    pub labels: Vec<(&'static str, String)>,
    /// The figure.
    pub value: f64,
}

impl Sample {
    /// The only one of its name.
    pub fn only(name: &'static str, value: f64) -> Self {
        Self { name, labels: Vec::new(), value }
    }
}

fn write_head(page: &mut String, name: &str) {
    let Some(metric) = METRICS.iter().find(|metric| metric.name == name) else { return };
    let kind = match metric.kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram(_) => "histogram",
    };
    // Writing to a text cannot fail.
    let _ = writeln!(page, "# HELP {name} {}\n# TYPE {name} {kind}", metric.help);
}

fn write_sample(page: &mut String, sample: &Sample) {
    page.push_str(sample.name);
    for (number, (label, value)) in sample.labels.iter().enumerate() {
        let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let _ = write!(page, "{}{label}=\"{value}\"", if number == 0 { '{' } else { ',' });
    }
    let end = if sample.labels.is_empty() { "" } else { "}" };
    let _ = writeln!(page, "{end} {}", sample.value);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_written_with_their_head_once_and_harmless_labels() {
        let mut page = String::new();
        write_sample(&mut page, &Sample::only(RUNNING, 3.0));
        write_sample(
            &mut page,
            &Sample {
                name: STEPS,
                labels: vec![("model", "a\"b\\c\n".into()), ("x", "1".into())],
                value: 0.5,
            },
        );
        let expected =
            "vllm:num_requests_running 3\nsconce_engine_steps_total{model=\"a\\\"b\\\\c\\n\",x=\"1\"} 0.5\n";
        assert_eq!(page, expected);
        let page =
            MetricsPage::of_process().render(&[Sample::only(WAITING, 1.0), Sample::only(WAITING, 2.0)]);
        assert_eq!(page.matches("# TYPE vllm:num_requests_waiting gauge").count(), 1);
    }

    #[test]
    fn no_name_stands_twice_in_the_table() {
        for metric in METRICS {
            assert_eq!(
                METRICS.iter().filter(|other| other.name == metric.name).count(),
                1,
                "{}",
                metric.name
            );
        }
    }
}
