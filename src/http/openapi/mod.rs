//! The description of the API for programs and people. Knows no single route: whoever has the routes gives the document
//! that `utoipa` made of them.
//!
//! The one thing to know: the document goes three steps, each a pure function: [`complete()`] adds what holds for every
//! operation (errors, headers, security), [`downgrade()`] says it in OpenAPI 3.0.3, [`routes`] serves both and the page.

mod about;
mod complete;
mod downgrade;
mod joined;
mod page;

pub use about::about;
pub use complete::complete;
pub use downgrade::{VERSION, downgrade};
pub use joined::joined;
pub use page::{Documents, paths, routes};
