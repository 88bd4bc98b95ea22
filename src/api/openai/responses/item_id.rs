//! The ids of items: each carries that of its response, so that it is found again when a request refers to it.

use crate::api::openai::responses::item::MAX_ITEMS;

/// The number of the first item of an answer; those that it answers have the numbers before.
pub const FIRST_OF_ANSWER: usize = MAX_ITEMS;

/// What ids of responses begin with.
const OF_RESPONSE: &str = "resp_";

/// Characters of the id of a response after that.
const OWN_CHARACTERS: usize = 32;

/// The id of an item of a response.
pub fn item_id(prefix: &str, response: &str, number: usize) -> String {
    let own = response.strip_prefix(OF_RESPONSE).unwrap_or(response);
    format!("{prefix}_{own}{number:04x}")
}

/// The id of the response that has this item; none for an id that was not made here.
pub fn response_of(item: &str) -> Option<String> {
    let (_, rest) = item.split_once('_')?;
    let (own, number) = rest.split_at_checked(OWN_CHARACTERS)?;
    let is_number = |text: &str| text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    (is_number(own) && !number.is_empty() && is_number(number)).then(|| format!("{OF_RESPONSE}{own}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::new_id;

    #[test]
    fn an_item_leads_to_its_response() {
        let response = new_id("resp");
        for number in [0, FIRST_OF_ANSWER - 1, FIRST_OF_ANSWER, 1 << 20] {
            let id = item_id("msg", &response, number);
            assert_eq!(response_of(&id).as_ref(), Some(&response), "{id}");
        }
        assert_ne!(item_id("fc", &response, 1), item_id("fc", &response, 17));
        let old = response.replace("resp_", "msg_");
        let strange = format!("msg_{}/..", "é".repeat(16));
        for other in ["", "msg", "msg_", "msg_1", &old, &format!("{old}xyz"), &strange] {
            assert_eq!(response_of(other), None, "{other}");
        }
    }
}
