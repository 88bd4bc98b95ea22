//! Lists as clients ask for them and get them: `?limit=&cursor=&sort=` beside a list's own filters, and
//! `{"items", "next_cursor"}`.
//!
//! Not the reading of pages: that is the store's. The one thing to know: a handler takes [`Listed<F>`], where `F` is what
//! the list can be filtered by, with `#[serde(deny_unknown_fields)]`; a parameter that neither knows is refused by name.

use axum::extract::FromRequestParts;
use axum::http::Uri;
use axum::http::request::Parts;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::error::Code;
use crate::http::{ApiError, AppState, Query};
use crate::store::{ListRequest, Order, Page};

/// Most items of one page.
const MOST: u32 = 100;

/// Items of a page where nobody says.
const USUAL: u32 = 20;

/// Which part of a list is wanted, as it stands in a query.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct PageQuery {
    /// Most items of the page.
    #[param(minimum = 1, maximum = 100, default = 20, example = 20)]
    limit: Option<u32>,
    /// `next_cursor` of the page before; the first page without it.
    cursor: Option<String>,
    /// What the list is sorted by; with a `-` before it, the other way round. Usually the newest is first. The answer to
    /// what it cannot be sorted by says what it can be.
    sort: Option<String>,
}

impl PageQuery {
    /// What it asks of a list that may be sorted by these columns; where it says nothing, by the first, downwards.
    ///
    /// # Errors
    /// 400 `invalid_value`, naming the parameter.
    pub fn request(&self, columns: &'static [&'static str]) -> Result<ListRequest, ApiError> {
        let limit = self.limit.unwrap_or(USUAL);
        if !(1..=MOST).contains(&limit) {
            return Err(wrong("limit", format!("must be 1 to {MOST}")));
        }
        let (order, name) = match self.sort.as_deref() {
            None => (Order::Descending, columns[0]),
            Some(text) => match text.strip_prefix('-') {
                Some(name) => (Order::Descending, name),
                None => (Order::Ascending, text),
            },
        };
        let sort = columns.iter().find(|column| **column == name);
        let sort =
            sort.ok_or_else(|| wrong("sort", format!("must be [-] and one of {}", columns.join(", "))))?;
        Ok(ListRequest { limit, cursor: self.cursor.clone(), sort, order })
    }
}

fn wrong(name: &str, reason: String) -> ApiError {
    ApiError::new(Code::InvalidValue, format!("`{name}` {reason}")).or_param(name)
}

/// Parameters that stand in a query beside a filter.
pub trait QueryPart: DeserializeOwned + Send {
    /// Their names; all others belong to the filter.
    const NAMES: &'static [&'static str];
}

impl QueryPart for PageQuery {
    const NAMES: &'static [&'static str] = &["limit", "cursor", "sort"];
}

/// The query of a list: which part of it, and filtered by what. `filter` holds texts, and what is read from text.
#[derive(Debug, Clone)]
pub struct Listed<F, P = PageQuery> {
    /// Which part, or what else is said of the list as a whole.
    pub page: P,
    /// What the items must be.
    pub filter: F,
}

impl<F: DeserializeOwned + Send, P: QueryPart> FromRequestParts<AppState> for Listed<F, P> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &AppState) -> Result<Self, ApiError> {
        Self::of_uri(&parts.uri)
    }
}

impl<F: DeserializeOwned, P: QueryPart> Listed<F, P> {
    fn of_uri(uri: &Uri) -> Result<Self, ApiError> {
        let is_own = |pair: &&str| pair.split('=').next().is_some_and(|name| P::NAMES.contains(&name));
        let pairs = uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
        let (own, rest): (Vec<&str>, Vec<&str>) = pairs.partition(is_own);
        Ok(Self { page: Query::of_text(&own.join("&"))?.0, filter: Query::of_text(&rest.join("&"))?.0 })
    }
}

/// A part of a list. It may have fewer items than were asked for and yet not be the last: a search looks at so many rows
/// at a time.
#[derive(Debug, Serialize, ToSchema)]
pub struct Paged<T> {
    /// The items.
    items: Vec<T>,
    /// To be sent as `cursor` for the next page; null at the end of the list.
    #[schema(example = json!(null))]
    next_cursor: Option<String>,
}

impl<T> From<Page<T>> for Paged<T> {
    fn from(page: Page<T>) -> Self {
        Self { items: page.items, next_cursor: page.next }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SORTS: &[&str] = &["created_at", "name"];

    #[derive(Debug, Default, PartialEq, Eq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Filter {
        status: Option<String>,
    }

    fn read(query: &str) -> Result<(ListRequest, Filter), (u32, String)> {
        let uri = format!("/list?{query}").parse().expect("it is a URI");
        let listed = Listed::<Filter, PageQuery>::of_uri(&uri);
        let both = listed.and_then(|listed| Ok((listed.page.request(SORTS)?, listed.filter)));
        both.map_err(|error| (error.number(), error.message().into_owned()))
    }

    #[test]
    fn what_is_not_said_is_the_usual() {
        let (request, filter) = read("").expect("it is right");
        let usual = ListRequest { limit: 20, cursor: None, sort: "created_at", order: Order::Descending };
        assert_eq!((request, filter), (usual, Filter::default()));
    }

    #[test]
    fn page_and_filter_stand_side_by_side() {
        let (request, filter) = read("status=a%26b&limit=100&sort=name&cursor=x").expect("it is right");
        let asked =
            ListRequest { limit: 100, cursor: Some("x".into()), sort: "name", order: Order::Ascending };
        assert_eq!((request, filter), (asked, Filter { status: Some("a&b".into()) }));
        assert_eq!(read("sort=-name").expect("it is right").0.order, Order::Descending);
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        for (query, name) in [
            ("limit=0", "limit"),
            ("limit=101", "limit"),
            ("limit=1000000000", "limit"),
            ("limit=99999999999999999999", "limit"),
            ("limit=-1", "limit"),
            ("limit=x", "limit"),
            ("limit=1&limit=2", "limit"),
            ("sort=password_hash", "sort"),
            ("sort=--name", "sort"),
            ("sort=", "sort"),
            ("offset=-1", "offset"),
            ("status=a&status=b", "status"),
            ("user_id=usr_1", "user_id"),
            ("status=%00", ""),
            ("cursor=a%00", ""),
        ] {
            let (number, message) = read(query).expect_err("it must be refused");
            assert_eq!(number, 40003, "{query}");
            assert!(message.contains(name), "{query}: {message}");
        }
    }
}
