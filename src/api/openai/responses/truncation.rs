//! `truncation`: with `auto` the oldest parts of a conversation go until the rest fits the model's context.
//!
//! A part is a whole turn, or within the last turn a call with its outputs, so that nothing is left that belonged to what went.
//! What is set up before anything is said never goes, nor what the user said last, nor what comes of it in the end.

use std::collections::HashMap;

use crate::api::openai::responses::item::{Item, ItemKind, Role};

/// Of the context an answer has room for so much, where nothing is said of its length: one part of so many.
const USUAL_ROOM: usize = 8;

/// How many tokens of the context a prompt may have, so that there is room for an answer of this length; half of it in any
/// case.
pub fn most_tokens(context: usize, max_output_tokens: Option<u32>) -> usize {
    let wanted = max_output_tokens.and_then(|tokens| usize::try_from(tokens).ok());
    context - wanted.unwrap_or(context / USUAL_ROOM).min(context / 2)
}

/// A search for how few of the oldest parts must go: what it has to try is tried by whoever can count tokens.
pub struct Cutting {
    items: Vec<Item>,
    parts: Vec<Option<usize>>,
    /// So many must go at least.
    least: usize,
    /// So many are enough, as far as anything is.
    enough: usize,
    next: Try,
}

/// What is tried next. Most conversations fit as they are; and one that never fits is found out before it is cut again and
/// again.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Try {
    Whole,
    Least,
    Between,
}

impl Cutting {
    /// Of a conversation.
    pub fn of(items: Vec<Item>) -> Self {
        let parts = parts(&items);
        let enough = parts.iter().flatten().map(|part| part + 1).max().unwrap_or(0);
        Self { items, parts, least: 0, enough, next: Try::Whole }
    }

    /// What is to be tried next; none once it is known how many must go.
    pub fn to_try(&self) -> Option<Vec<Item>> {
        (self.least < self.enough).then(|| without(&self.items, &self.parts, self.tried()))
    }

    /// Goes on by whether what was to be tried fits.
    pub fn tell(&mut self, fits: bool) {
        let tried = self.tried();
        if fits {
            self.enough = tried;
        } else {
            self.least = (tried + 1).min(self.enough);
        }
        self.next = if self.next == Try::Whole { Try::Least } else { Try::Between };
    }

    /// What is left; of a conversation that does not fit at all, what may not go.
    pub fn into_left(self) -> Vec<Item> {
        without(&self.items, &self.parts, self.enough)
    }

    fn tried(&self) -> usize {
        match self.next {
            Try::Whole => 0,
            Try::Least => self.enough,
            Try::Between => usize::midpoint(self.least, self.enough),
        }
    }
}

/// The items that are left when the first so many parts are gone.
fn without(items: &[Item], parts: &[Option<usize>], gone: usize) -> Vec<Item> {
    let left = items.iter().zip(parts).filter(|(_, part)| part.is_none_or(|part| part >= gone));
    left.map(|(item, _)| item.clone()).collect()
}

/// For each item the part that it belongs to, in the order in which they go; none: it stays.
fn parts(items: &[Item]) -> Vec<Option<usize>> {
    let last_said = items.iter().rposition(is_question);
    let (mut parts, mut of_call) = (Vec::with_capacity(items.len()), HashMap::new());
    let (mut current, mut was_output) = (0, false);
    let mut has_begun = false;
    for (number, item) in items.iter().enumerate() {
        let is_output = matches!(item.kind, ItemKind::Output { .. });
        let is_last_turn = last_said.is_none_or(|last| number >= last);
        let begins = is_question(item) || (is_last_turn && was_output && !is_output);
        if begins && has_begun {
            current += 1;
        }
        let part = (!is_setting(item) && last_said != Some(number)).then_some(current);
        has_begun |= !is_setting(item);
        was_output = is_output;
        parts.push(match &item.kind {
            ItemKind::Call { call_id, .. } => {
                of_call.insert(call_id, part);
                part
            }
            // Where its call goes it goes, too.
            ItemKind::Output { call_id, .. } => of_call.get(call_id).copied().unwrap_or(part),
            _ => part,
        });
    }
    // What the user said last begins the last turn and stays; of what came of it the last part stays.
    let last = parts.iter().flatten().max().copied();
    let stays = |number: usize| last_said.is_none_or(|said| number >= said);
    let last_stays = items.iter().enumerate().any(|(number, _)| stays(number) && parts[number] == last);
    if last_stays {
        parts.iter_mut().filter(|part| **part == last).for_each(|part| *part = None);
    }
    parts
}

fn is_question(item: &Item) -> bool {
    matches!(item.kind, ItemKind::Message { role: Role::User, .. })
}

/// What is set up before anything is said.
fn is_setting(item: &Item) -> bool {
    matches!(item.kind, ItemKind::Message { role: Role::System | Role::Developer, .. })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::api::openai::responses::conversation::check_calls;
    use crate::api::openai::responses::item::tests;

    fn said(role: &str, text: &str) -> Value {
        json!({"role": role, "content": text})
    }

    fn call(id: &str) -> Value {
        json!({"type": "function_call", "call_id": id, "name": "f", "arguments": "{}"})
    }

    fn output(id: &str) -> Value {
        json!({"type": "function_call_output", "call_id": id, "output": "y"})
    }

    fn items(values: &[Value]) -> Vec<Item> {
        tests::items(json!(values))
    }

    /// The numbers of the items that are left, each counted as one token.
    fn left(values: &[Value], most: usize) -> Vec<usize> {
        let all = items(values);
        let mut cutting = Cutting::of(all.clone());
        while let Some(items) = cutting.to_try() {
            cutting.tell(items.len() <= most);
        }
        let left = cutting.into_left();
        assert_eq!(check_calls(&left, left.len()), Ok(()), "calls keep their outputs");
        let mut places = all.iter().enumerate();
        let number = |item: &Item| places.find(|(_, other)| *other == item).map(|(number, _)| number);
        left.iter().map(number).collect::<Option<_>>().expect("they are in their order")
    }

    #[test]
    fn the_oldest_turns_go_and_what_was_set_up_stays() {
        let talk = [
            said("developer", "Be brief."),
            said("user", "1"),
            call("a"),
            output("a"),
            said("assistant", "one"),
            said("user", "2"),
            said("assistant", "two"),
            said("system", "Be kind."),
            said("user", "3"),
        ];
        assert_eq!(left(&talk, 9).len(), 9);
        assert_eq!(left(&talk, 8), [0, 5, 6, 7, 8]);
        assert_eq!(left(&talk, 5), [0, 5, 6, 7, 8]);
        assert_eq!(left(&talk, 4), [0, 7, 8]);
        assert_eq!(left(&talk, 1), [0, 7, 8], "the rest stays though it does not fit");
    }

    #[test]
    fn of_the_last_turn_the_oldest_calls_go_with_their_outputs() {
        let work = [
            said("user", "1"),
            said("user", "2"),
            call("a"),
            call("b"),
            output("a"),
            said("assistant", "next"),
            call("c"),
            output("b"),
            output("c"),
            call("d"),
            output("d"),
        ];
        assert_eq!(left(&work, 10), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
        assert_eq!(left(&work, 9), [1, 5, 6, 8, 9, 10]);
        assert_eq!(left(&work, 5), [1, 9, 10]);
        assert_eq!(left(&work, 1), [1, 9, 10]);
        assert_eq!(left(&[said("user", "1"), said("assistant", "one")], 1), [0, 1]);
    }

    #[test]
    fn what_never_fits_is_not_tried_again_and_again() {
        let talk: Vec<Value> = (0..1000).map(|number| said("user", &number.to_string())).collect();
        let mut cutting = Cutting::of(items(&talk));
        let mut tries = 0;
        while cutting.to_try().is_some() {
            cutting.tell(false);
            tries += 1;
        }
        assert_eq!((tries, cutting.into_left().len()), (2, 1));
    }

    #[test]
    fn there_is_room_for_an_answer() {
        assert_eq!((most_tokens(800, None), most_tokens(800, Some(50))), (700, 750));
        assert_eq!(most_tokens(800, Some(u32::MAX)), 400);
    }
}
