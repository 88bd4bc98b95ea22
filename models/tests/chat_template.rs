//! Chat templates render what transformers renders, and hostile ones end in an error with bounded memory and work.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod allocation;
mod golden_data;

use std::path::Path;

use golden_data::{answers, golden, test_model};
use sconce_models::chat_template::TemplateInput;
use sconce_models::weights::open;
use sconce_models::{Arithmetic, ChatTemplate, Device, Error, ModelFiles, Tokenizer};
use serde_json::{Value, json};

/// The template and tokenizer of a model.
fn load(path: &Path) -> (ChatTemplate, Tokenizer) {
    let files = ModelFiles::find(path).unwrap();
    let opened = open(&files, &Device::cpu(), Arithmetic::Float).unwrap();
    let rows = opened.config["vocab_size"].as_u64().unwrap() as usize;
    let template =
        ChatTemplate::find(&files, opened.metadata.as_ref()).unwrap().expect("the model has a template");
    (template, Tokenizer::load(&files, opened.metadata.as_ref(), rows).unwrap())
}

fn list(value: &Value) -> Vec<Value> {
    value.as_array().cloned().unwrap_or_default()
}

fn input(case: &Value) -> TemplateInput {
    TemplateInput {
        messages: list(&case["messages"]),
        tools: list(&case["tools"]),
        variables: case["kwargs"].as_object().cloned().unwrap_or_default(),
        add_generation_prompt: case["add_generation_prompt"].as_bool().unwrap(),
    }
}

/// Renders and tokenises every case; returns how many there were.
fn check(answers: &Value, path: &Path) -> usize {
    let (template, tokenizer) = load(path);
    let cases = list(&answers["chat_cases"]);
    for case in &cases {
        let name = format!("{} {}", path.display(), case["name"]);
        let rendered = template.render(&input(case));
        if let Some(expected) = case["error"].as_str() {
            let error = rendered.expect_err(&name).to_string();
            assert!(error.contains(expected), "{name}: {error}");
            continue;
        }
        let rendered = rendered.unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(rendered, case["rendered"].as_str().unwrap(), "{name}");
        let ids: Vec<u32> = serde_json::from_value(case["ids"].clone()).unwrap();
        assert_eq!(tokenizer.encode(&rendered, false).unwrap(), ids, "{name}");
    }
    cases.len()
}

#[test]
fn safetensors_models_render_as_transformers_does() {
    for case in
        ["llama", "llama_rope_llama3", "llama_sharded_bf16", "mistral", "qwen2", "qwen3", "qwen3_yarn"]
    {
        assert!(check(&answers(case), &golden(case)) >= 7, "{case}");
    }
}

#[test]
fn gguf_models_render_as_transformers_does() {
    for (case, file) in [("llama", "llama.F32"), ("llama256", "llama256.Q8_0"), ("qwen2", "qwen2.F16")] {
        let case = format!("gguf/{case}");
        assert!(check(&answers(&case), &golden(&case).join(format!("{file}.gguf"))) >= 7, "{case}");
    }
}

#[test]
fn smollm2_renders_as_transformers_does() {
    assert!(check(&answers("smollm2"), &test_model("SmolLM2-135M-Instruct.Q4_1.gguf")) >= 7);
}

#[test]
fn encoders_have_no_template() {
    let files = ModelFiles::find(&golden("bert")).unwrap();
    assert!(ChatTemplate::find(&files, None).unwrap().is_none());
}

fn render(source: &str) -> Result<String, Error> {
    let messages = vec![json!({ "role": "user", "content": "hi <b> \"é\"" }), json!({ "role": "assistant" })];
    let input = TemplateInput { messages, add_generation_prompt: true, ..TemplateInput::default() };
    ChatTemplate::new(source, Some("<s>"), None)?.render(&input)
}

#[test]
fn templates_see_what_python_gives_them() {
    for (source, expected) in [
        ("{{ bos_token }}{{ eos_token }}|", "<s>|"),
        ("{{ tools is none }}{{ documents }}", "TrueNone"),
        ("{% if true %}\n  x\n{% endif %}\ny\n", "  x\ny"),
        ("a\n  {% if true %}b{% endif %}", "a\nb"),
        ("{{ messages[0].content | tojson }}", r#""hi <b> \"é\"""#),
        ("{{ messages[0].content | tojson(ensure_ascii=true) }}", r#""hi <b> \"\u00e9\"""#),
        ("{{ {'a': [1, 2.0, none, true], 'b': {}} | tojson }}", r#"{"a": [1, 2.0, null, true], "b": {}}"#),
        ("{{ {'b': [], 'a': [1]} | tojson(indent=2) }}", "{\n  \"b\": [],\n  \"a\": [\n    1\n  ]\n}"),
        ("{{ {'b': 1, 'a': 2} | tojson(sort_keys=true, separators=(',', ':')) }}", r#"{"a":2,"b":1}"#),
        ("{{ messages[::-1][0].role }}{{ messages[-1]['role'] }}", "assistantassistant"),
        ("{{ 'content' in messages[1] }}{{ messages[1].content is defined }}", "FalseFalse"),
        ("{{ 'a,b'.split(',')[1].upper() }}{{ '  x '.strip() }}{{ 'ab'.startswith('a') }}", "BxTrue"),
        ("{{ '-' * 3 }}{{ 3 * '=' }}{{ [1] * 2 }}{{ 6 * 7 }}{{ 1.5 * 2 }}", "---===[1, 1]423.0"),
        (
            "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}",
            "2",
        ),
        (
            "{% for m in messages %}{% if loop.first %}{% continue %}{% endif %}{{ m.role }}{% break %}{% endfor %}",
            "assistant",
        ),
        ("{% macro f(x, y='d') %}[{{ x }}{{ y }}]{% endmacro %}{{ f(1) }}{{ f(2, y=3) }}", "[1d][23]"),
        ("{% set x %}a{{ 1 }}{% endset %}{{ x ~ 'b' }}{% filter upper %}c{% endfilter %}", "a1bC"),
        ("{% for k, v in messages[0].items() %}{{ k }};{% endfor %}", "role;content;"),
        ("{% generation %}x{% endgeneration %}", "x"),
        (
            "{{ ['a', 'b'] | join('-') }}{{ 'aXb' | replace('X', '.') }}{{ 'a\nb' | indent(2) }}",
            "a-ba.ba\n  b",
        ),
        (
            "{{ 'a\nb' | indent(width=1, first=true) }}{{ messages | join('+', attribute='role') }}",
            " a\n buser+assistant",
        ),
        (
            "{{ messages | map(attribute='role') | list | length }}{{ messages | selectattr('role', 'equalto', 'user') | list | length }}",
            "21",
        ),
        ("{{ strftime_now('%Y') | length }}", "4"),
        ("{{ 'x' if false }}|{{ missing }}|{{ missing | default('d') }}", "||d"),
        ("{{ 10 // 3 }}{{ 10 % 3 }}{{ 2 ** 8 }}{{ 1 < 2 < 3 }}", "31256True"),
        ("{{ '{} {:>4}'.format('a', 'b') }}", "a    b"),
    ] {
        assert_eq!(render(source).as_deref().ok(), Some(expected), "{source}: {:?}", render(source));
    }
}

#[test]
fn an_exception_of_the_template_is_its_error() {
    let error = render("{{ raise_exception('Roles must alternate') }}").unwrap_err().to_string();
    assert!(error.contains("Roles must alternate"), "{error}");
}

#[test]
fn the_caller_cannot_replace_the_templates_own_names() {
    let variables =
        json!({ "messages": [], "bos_token": "x", "eos_token": "x", "tools": 1, "enable_thinking": false });
    let input =
        TemplateInput { variables: variables.as_object().cloned().unwrap(), ..TemplateInput::default() };
    let template = ChatTemplate::new(
        "{{ bos_token }}{{ eos_token is defined }}{{ tools }}{{ enable_thinking }}",
        Some("<s>"),
        None,
    );
    assert_eq!(template.unwrap().render(&input).unwrap(), "<s>FalseNoneFalse");
}

/// Templates that would take all memory, all time or the stack, each of which must end in an error.
fn hostile_templates() -> Vec<(String, String)> {
    let doubling = |body: &str| {
        format!(
            "{{% set ns = namespace(x='aaaaaaaa', l=[1]) %}}{{% for i in range(60) %}}{body}{{% endfor %}}{{{{ ns.x }}}}{{{{ ns.l }}}}"
        )
    };
    let nested = |open: &str, close: &str, count: usize| {
        format!("{{{{ {}1{} }}}}", open.repeat(count), close.repeat(count))
    };
    let named = |name: &str, source: String| (name.to_owned(), source);
    vec![
        named("repetition", "{{ '-' * 10**10 }}".into()),
        named("repetition from the right", "{{ 10**10 * '-' }}".into()),
        named("repetition below the engine's own limit", "{{ '-' * 90000000 }}".into()),
        named("repeated list", "{{ ([0] * 10**8) | list | length }}".into()),
        named("repetitions in a list", format!("{{{{ [{}] }}}}", "'-' * 8000000,".repeat(500))),
        named("indent", "{{ 'a\nb' | indent(10**9) }}".into()),
        named("indent by name", "{{ 'a\nb' | indent(width=10**9) }}".into()),
        named("indented JSON", "{{ messages | tojson(indent=10**9) }}".into()),
        named("nested loops", "{% for a in range(100000) %}{% for b in range(100000) %}{% for c in range(100) %}{{ '' }}{% endfor %}{% endfor %}{% endfor %}".into()),
        named("range", "{{ range(10**12) | list }}".into()),
        named("macro that calls itself", "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}".into()),
        named("macro that calls itself twice", "{% macro f() %}{{ f() }}{{ f() }}{% endmacro %}{{ f() }}".into()),
        named("recursive loop", "{% for x in [1] recursive %}{{ loop([[x]]) }}{% endfor %}".into()),
        named("brackets", nested("(", ")", 100_000)),
        named("lists", nested("[", "]", 100_000)),
        named("minus signs", nested("-", "", 100_000)),
        named("sum of many", nested("1+", "", 60_000)),
        named("attributes", format!("{{{{ a{} }}}}", ".b".repeat(60_000))),
        named("filters", format!("{{{{ 'a'{} }}}}", "|e".repeat(60_000))),
        named("elif", format!("{{% if 0 %}}{}{{% endif %}}", "{%elif 0%}".repeat(20_000))),
        named("blocks", "{% if 1 %}".repeat(20_000)),
        named("many arguments", format!("{{{{ f({}) }}}}", "1,".repeat(70_000))),
        named("10 MB", "x".repeat(10 << 20)),
        named("output", "{% for a in range(100000) %}{{ messages | tojson }}{{ 'x' * 100000 }}{% endfor %}".into()),
        named("raw output", format!("{{% for a in range(100000) %}}{}{{% endfor %}}", "x".repeat(100_000))),
        named("captured output", format!("{{% set y %}}{{% for a in range(100000) %}}{}{{% endfor %}}{{% endset %}}", "x".repeat(100_000))),
        named("doubled by `~`", doubling("{% set ns.x = ns.x ~ ns.x %}")),
        named("doubled by `+`", doubling("{% set ns.x = ns.x + ns.x %}")),
        named("doubled by `*`", doubling("{% set ns.x = ns.x * 2 %}")),
        named("doubled by a block", doubling("{% set y %}{{ ns.x }}{{ ns.x }}{% endset %}{% set ns.x = y %}")),
        named("doubled by join", doubling("{% set ns.x = [ns.x, ns.x] | join %}")),
        named("doubled by the method join", doubling("{% set ns.x = ''.join([ns.x, ns.x]) %}")),
        named("doubled by replace", doubling("{% set ns.x = ns.x | replace('a', 'aa') %}")),
        named("doubled by the method replace", doubling("{% set ns.x = ns.x.replace('a', 'aa') %}")),
        named("doubled by the empty text", doubling("{% set ns.x = ns.x.replace('', 'a') %}")),
        named("doubled by format", doubling("{% set ns.x = '{}{}'.format(ns.x, ns.x) %}")),
        named("doubled by a macro", "{% macro f(x, n) %}{{ f(x ~ x, n - 1) if n else x }}{% endmacro %}{{ f('aaaaaaaa', 60) }}".into()),
        named("doubled lists", doubling("{% set ns.l = ns.l + ns.l %}")),
        named("lists of lists, shared", doubling("{% set ns.l = [ns.l, ns.l] %}")),
        named("maps of maps, shared", doubling("{% set ns.l = {'a': ns.l, 'b': ns.l} %}")),
        named("shared lists as JSON", doubling("{% set ns.l = [ns.l, ns.l] %}{% set y = ns.l | tojson %}")),
        named("shared lists compared", doubling("{% set ns.l = [ns.l, ns.l] %}{{ ns.l == ns.l }}")),
        named("lists nested deep", "{% set ns = namespace(x=[]) %}{% for i in range(99999) %}{% set ns.x = [ns.x] %}{% endfor %}".into()),
        named("tuples nested deep by many tags", format!("{{% set x = [] %}}{}", "{%set x=[x]%}".repeat(8000))),
        named("a namespace in itself", "{% set ns = namespace() %}{% set ns.x = ns %}{{ ns }}".into()),
        named("width in a format", "{{ '{:>1000000000}'.format('a') }}".into()),
        named("width from an argument", "{{ '{:>{}}'.format('a', 1000000000) }}".into()),
        named("width in a printf format", "{{ '%1000000000d' | format(1) }}".into()),
        named("precision", "{{ '{:.1000000000f}'.format(1.0) }}".into()),
        named("filled batches", "{{ [1] | batch(1000000000, 'x') | list }}".into()),
        named("many slices", "{{ [1] | slice(1000000000) | list }}".into()),
        named("sum of texts", "{{ (['x' * 100000] * 20000) | sum(start='') }}".into()),
        named("texts in upper case", "{{ (['x' * 1000000] * 20000) | map('upper') | list }}".into()),
        named("long texts searched", "{% set x = 'a' * 4000000 %}{% for i in range(100000) %}{{ 'b' in x }}{% endfor %}".into()),
        named("long texts cut", "{% set x = 'a' * 4000000 %}{% for i in range(100000) %}{% set y = x.split('a') %}{% endfor %}".into()),
        named("a shadowed check", "{% macro namespace() %}{% endmacro %}{% set range = 1 %}{{ '-' * 10**10 }}".into()),
        named("an unknown file", "{% include 'chat template' %}".into()),
        named("unclosed", "{% if".into()),
    ]
}

#[test]
fn hostile_templates_end_in_an_error_with_bounded_memory() {
    for (name, source) in hostile_templates() {
        let (result, peak) = allocation::peak_of(|| render(&source));
        let error = result.map(|text| text.len()).expect_err(&name);
        assert!(matches!(error, Error::Template(_)), "{name}: {error}");
        assert!(peak < (512 << 20), "{name}: {peak} bytes at once; {error}");
    }
}

#[test]
fn templates_as_large_as_the_checks_allow_render() {
    let chain = |part: &str, count: usize| part.repeat(count);
    for (source, expected) in [
        (format!("{{{{ {}1 }}}}", chain("1+", 2000)), "2001".to_owned()),
        (format!("{{{{ {}1 }}}}", chain("x~", 2000)), "1".to_owned()),
        (format!("{{{{ 'a'{} }}}}", chain("|e", 2000)), "a".to_owned()),
        (format!("{{{{ [{}1] | length }}}}", chain("1,", 2000)), "2001".to_owned()),
        (format!("{{{{ {}1{} }}}}", chain("(", 40), chain(")", 40)), "1".to_owned()),
        (format!("{{% if 0 %}}{}{{% else %}}b{{% endif %}}", chain("{%elif 0%}a", 8000)), "b".to_owned()),
        (chain("{{ 1 }}", 8000), chain("1", 8000)),
    ] {
        let start = &source[..source.len().min(20)];
        assert_eq!(render(&source).map_err(|e| format!("{start}: {e}")), Ok(expected));
    }
}

#[test]
fn a_long_conversation_is_within_the_limits() {
    let (template, _) = load(&golden("qwen3"));
    let text = "All work and no play makes Jack a dull boy. ".repeat(20);
    let messages = (0..2000)
        .map(|number| json!({ "role": if number % 2 == 0 { "user" } else { "assistant" }, "content": text }))
        .collect();
    let input = TemplateInput { messages, add_generation_prompt: true, ..TemplateInput::default() };
    let rendered = template.render(&input).unwrap();
    assert_eq!(rendered.matches("Jack").count(), 2000 * 20);
}
