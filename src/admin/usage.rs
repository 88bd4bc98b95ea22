//! `/api/v1/admin/usage`: what everybody used, as rows, as sums, and as a file for a spreadsheet.

use std::collections::VecDeque;

use axum::body::Body;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use crate::auth::AuthError;
use crate::auth::records::{UsageEntry, UsageGrouping, UsageReader, UsageTotals};
use crate::clock::Timestamp;
use crate::http::{Envelope, EnvelopeError, Granted, Listed, PageQuery, Paged, QueryPart};
use crate::store::Page;
use crate::store::usage::{SORTS, UsageFilter};

/// Which usage is meant.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct UsageQuery {
    /// Of this user.
    user_id: Option<String>,
    /// By this key.
    key_id: Option<String>,
    /// For this team.
    team_id: Option<String>,
    /// Answered by this model.
    model: Option<String>,
    /// In this request.
    request_id: Option<String>,
    /// For this user of the caller's.
    end_user: Option<String>,
    /// From then on.
    #[param(value_type = Option<String>, format = DateTime)]
    since: Option<Timestamp>,
    /// Before then.
    #[param(value_type = Option<String>, format = DateTime)]
    until: Option<Timestamp>,
}

impl From<UsageQuery> for UsageFilter {
    fn from(query: UsageQuery) -> Self {
        let UsageQuery { user_id, key_id, team_id, model, request_id, end_user, since, until } = query;
        Self { user_id, key_id, team_id, model, request_id, end_user, since, until }
    }
}

/// What sums are made by.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct GroupingQuery {
    /// What the sums are made by: `model` if it is left out.
    #[serde(default)]
    #[param(inline)]
    group_by: UsageGrouping,
}

impl QueryPart for GroupingQuery {
    const NAMES: &'static [&'static str] = &["group_by"];
}

/// How a file is written.
#[derive(Debug, Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FileFormat {
    /// Values parted by commas (RFC 4180).
    #[default]
    Csv,
}

/// How the file is written.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct FormatQuery {
    /// The format: `csv` if it is left out.
    #[serde(default)]
    #[param(inline)]
    format: FileFormat,
}

impl QueryPart for FormatQuery {
    const NAMES: &'static [&'static str] = &["format"];
}

/// Lists what was used, request by request, the newest first.
///
/// # Errors
/// 403 without `usage:read`.
#[utoipa::path(get, path = "/api/v1/admin/usage", operation_id = "listUsage", tag = "usage",
    params(PageQuery, UsageQuery),
    responses((status = 200, description = "A page of what was used", body = Envelope<Paged<UsageEntry>>)))]
pub async fn list(
    Granted(usage): Granted<UsageReader>,
    Listed { page, filter }: Listed<UsageQuery>,
) -> Result<Envelope<Paged<UsageEntry>>, EnvelopeError> {
    let request = page.request(SORTS)?;
    Ok(Envelope::of(usage.list(&filter.into(), &request).await?.into()))
}

/// Sums up what was used, by model, user, key, team or day.
///
/// # Errors
/// 403 without `usage:read`.
#[utoipa::path(get, path = "/api/v1/admin/usage/totals", operation_id = "getUsageTotals", tag = "usage",
    params(GroupingQuery, UsageQuery),
    responses((status = 200, description = "The sums", body = Envelope<UsageTotals>)))]
pub async fn totals(
    Granted(usage): Granted<UsageReader>,
    Listed { page, filter }: Listed<UsageQuery, GroupingQuery>,
) -> Result<Envelope<UsageTotals>, EnvelopeError> {
    Ok(Envelope::of(usage.totals(&filter.into(), page.group_by).await?))
}

/// Gives what was used as a file, oldest first. A cell that a spreadsheet would take for a formula begins with `'`.
///
/// # Errors
/// 403 without `usage:read`.
#[utoipa::path(get, path = "/api/v1/admin/usage/export", operation_id = "exportUsage", tag = "usage",
    params(FormatQuery, UsageQuery),
    responses((status = 200, description = "One line a request", body = String, content_type = "text/csv")))]
pub async fn export(
    Granted(usage): Granted<UsageReader>,
    Listed { page: FormatQuery { format: FileFormat::Csv }, filter }: Listed<UsageQuery, FormatQuery>,
) -> Result<Response, EnvelopeError> {
    let mut export = Export { usage, filter: filter.into(), pages: VecDeque::new(), cursor: None };
    // What fails at once is told as an error; what fails later can only cut the file short.
    export.read_on().await?;
    let lines = stream::try_unfold((export, true), async |(mut export, is_first)| {
        let head = if is_first { HEAD } else { "" };
        let text = export.next().await?.map(|text| format!("{head}{text}"));
        Ok::<_, AuthError>(text.map(|text| (text, (export, false))))
    });
    let headers = [
        (CONTENT_TYPE, "text/csv; charset=utf-8"),
        (CONTENT_DISPOSITION, "attachment; filename=\"usage.csv\""),
    ];
    Ok((headers, Body::from_stream(lines)).into_response())
}

const HEAD: &str = "id,at,request_id,user_id,key_id,team_id,model,asked_for,endpoint,prompt_tokens,cached_tokens,\
                    completion_tokens,outcome,duration_ms,end_user,metadata\r\n";

/// A file in the making: a page in memory, and where the next begins.
struct Export {
    usage: UsageReader,
    filter: UsageFilter,
    pages: VecDeque<Page<UsageEntry>>,
    cursor: Option<String>,
}

impl Export {
    async fn read_on(&mut self) -> Result<(), AuthError> {
        let page = self.usage.export(&mut self.filter, self.cursor.take()).await?;
        self.cursor.clone_from(&page.next);
        self.pages.push_back(page);
        Ok(())
    }

    async fn next(&mut self) -> Result<Option<String>, AuthError> {
        if self.pages.is_empty() && self.cursor.is_some() {
            self.read_on().await?;
        }
        let page = self.pages.pop_front();
        Ok(page.map(|page| page.items.iter().map(line).collect()))
    }
}

fn line(entry: &UsageEntry) -> String {
    let optional = |text: &Option<String>| cell(text.as_deref().unwrap_or_default());
    let texts = [
        cell(&entry.id),
        entry.at.to_string(),
        cell(&entry.request_id),
        optional(&entry.user_id),
        optional(&entry.key_id),
        optional(&entry.team_id),
        cell(&entry.model),
        cell(&entry.asked_for),
        cell(&entry.endpoint),
        entry.prompt_tokens.to_string(),
        entry.cached_tokens.to_string(),
        entry.completion_tokens.to_string(),
        cell(&entry.outcome),
        entry.duration_ms.to_string(),
        optional(&entry.end_user),
        cell(&entry.metadata.as_ref().map(ToString::to_string).unwrap_or_default()),
    ];
    format!("{}\r\n", texts.join(","))
}

/// A text as a cell: never a formula, and quoted where it must be.
fn cell(text: &str) -> String {
    let is_formula = text.starts_with(['=', '+', '-', '@', '\t', '\r', '\n']);
    let text = if is_formula { format!("'{text}") } else { text.to_owned() };
    match text.contains([',', '"', '\r', '\n']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c9_no_cell_is_a_formula_or_breaks_its_line() {
        for (text, written) in [
            ("", ""),
            ("gpt-4o", "gpt-4o"),
            ("=cmd()", "'=cmd()"),
            ("+1", "'+1"),
            ("-1", "'-1"),
            ("@a", "'@a"),
            ("\ta", "'\ta"),
            ("\ra", "\"'\ra\""),
            ("=a,\"b\"", "\"'=a,\"\"b\"\"\""),
            ("a\nb", "\"a\nb\""),
        ] {
            assert_eq!(cell(text), written, "{text:?}");
        }
    }
}
