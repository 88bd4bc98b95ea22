//! Forms with a file, and files of requests, as clients of `/v1/files` and `/v1/batches` send them.
#![allow(dead_code, reason = "each test binary uses its own part")]

use reqwest::RequestBuilder;
use serde_json::{Value, json};

/// Puts a form into a request: its fields, and a file if it has a name.
pub fn with_form(
    request: RequestBuilder,
    fields: &[(&str, &str)],
    file: Option<(&str, &[u8])>,
) -> RequestBuilder {
    const BOUNDARY: &str = "a-boundary-that-is-in-no-file";
    let mut body = Vec::new();
    for (name, value) in fields {
        let part =
            format!("--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n");
        body.extend_from_slice(part.as_bytes());
    }
    if let Some((name, content)) = file {
        let head = format!(
            "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\
             Content-Type: application/octet-stream\r\n\r\n"
        );
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(content);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(format!("--{BOUNDARY}--\r\n").as_bytes());
    request.header("content-type", format!("multipart/form-data; boundary={BOUNDARY}")).body(body)
}

/// One line of a batch.
pub fn line(custom_id: &str, url: &str, body: &Value) -> String {
    json!({"custom_id": custom_id, "method": "POST", "url": url, "body": body}).to_string()
}

/// The objects of a file of lines.
pub fn read_lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect()
}

/// Whether a batch is over.
pub fn is_over(batch: &Value) -> bool {
    ["completed", "failed", "expired", "cancelled"].iter().any(|status| batch["status"] == *status)
}
