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

/// Where an item is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ItemPlace {
    /// The response that has it.
    pub response: String,
    /// It is one of the answer's, and not one of those that it answers.
    pub is_of_answer: bool,
}

/// Where the item of this id is kept; none for an id that was not made here.
pub fn place_of(item: &str) -> Option<ItemPlace> {
    let (_, rest) = item.split_once('_')?;
    let (own, number) = rest.split_at_checked(OWN_CHARACTERS)?;
    let is_number = |text: &str| text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if !is_number(own) || !is_number(number) {
        return None;
    }
    let number = usize::from_str_radix(number, 16).ok()?;
    Some(ItemPlace { response: format!("{OF_RESPONSE}{own}"), is_of_answer: number >= FIRST_OF_ANSWER })
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
            let place = ItemPlace { response: response.clone(), is_of_answer: number >= FIRST_OF_ANSWER };
            assert_eq!(place_of(&id), Some(place), "{id}");
        }
        assert_ne!(item_id("fc", &response, 1), item_id("fc", &response, 17));
        let old = response.replace("resp_", "msg_");
        let strange = format!("msg_{}/..", "é".repeat(16));
        let endless = format!("{old}{}", "f".repeat(40));
        for other in ["", "msg", "msg_", "msg_1", &old, &format!("{old}xyz"), &strange, &endless] {
            assert_eq!(place_of(other), None, "{other}");
        }
    }
}
