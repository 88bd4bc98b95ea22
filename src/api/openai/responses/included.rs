//! `include`: what else is to be shown of an answer. In a body it is a list; in a query its values stand one by one, as
//! `include`, `include[]` or `include[0]`.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use crate::api::openai::fields::ParameterError;
use crate::http::{ApiError, AppState, Query};

/// Something that can be included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Included {
    /// How likely each token was.
    Logprobs,
    /// Thoughts in the form that clients carry.
    Thoughts,
}

impl Included {
    /// By its name, which stands at `path`.
    ///
    /// # Errors
    /// For what is of tools that are not here, and for what nobody knows.
    pub fn of(name: &str, path: &str) -> Result<Self, ParameterError> {
        match name {
            "message.output_text.logprobs" => Ok(Self::Logprobs),
            "reasoning.encrypted_content" => Ok(Self::Thoughts),
            "file_search_call.results"
            | "web_search_call.results"
            | "web_search_call.action.sources"
            | "message.input_image.image_url"
            | "computer_call_output.output.image_url"
            | "code_interpreter_call.outputs" => {
                Err(ParameterError::unsupported(path, "it is of a tool that is not here"))
            }
            _ => {
                let reason = "must be message.output_text.logprobs or reasoning.encrypted_content";
                Err(ParameterError::invalid(path, reason))
            }
        }
    }
}

/// A query with `include` beside what is in `T`. What was kept has what it was made with, so that it changes nothing.
pub struct Including<T>(pub T);

impl<T: DeserializeOwned + Send> FromRequestParts<AppState> for Including<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &AppState) -> Result<Self, ApiError> {
        Self::of_text(parts.uri.query().unwrap_or_default())
    }
}

impl<T: DeserializeOwned> Including<T> {
    fn of_text(text: &str) -> Result<Self, ApiError> {
        let mut rest = Vec::new();
        for part in text.split('&') {
            let pairs: Vec<(String, String)> = Query::of_text(part)?.0;
            match pairs.first() {
                Some((name, value)) if is_include(name) => drop(Included::of(value, name)?),
                _ => rest.push(part),
            }
        }
        Query::of_text(&rest.join("&")).map(|query| Self(query.0))
    }
}

fn is_include(name: &str) -> bool {
    let Some(rest) = name.strip_prefix("include") else { return false };
    let number = rest.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    rest.is_empty() || number.is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Rest {
        limit: Option<u32>,
    }

    #[test]
    fn what_is_included_stands_beside_the_rest_in_every_spelling() {
        for (text, limit) in [
            ("", None),
            ("limit=3", Some(3)),
            ("include=reasoning.encrypted_content&limit=3", Some(3)),
            (
                "include%5B%5D=message.output_text.logprobs&limit=3&include[]=reasoning.encrypted_content",
                Some(3),
            ),
            ("include[0]=message.output_text.logprobs&include[1]=reasoning.encrypted_content", None),
        ] {
            let read = Including::<Rest>::of_text(text).map_err(|error| error.message().into_owned());
            assert_eq!(read.map(|read| read.0), Ok(Rest { limit }), "{text}");
        }
        for (text, param) in [
            ("include[]=file_search_call.results", "include[]"),
            ("include=everything", "include"),
            ("included=x", "included"),
            ("include[x]=reasoning.encrypted_content", "include[x]"),
        ] {
            let refused = Including::<Rest>::of_text(text).map(|_| ()).expect_err(text);
            assert_eq!((refused.status().as_u16(), refused.param()), (400, Some(param)), "{text}");
        }
    }
}
