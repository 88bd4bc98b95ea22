//! What is checked before a template is parsed: its length, and how deep its expressions can nest.
//!
//! The parser bounds brackets and blocks by itself; chains (`a + a + …`, `a.b.c…`, `elif` after `elif`) nest just as
//! deep in its tree, and that tree is walked by recursion. So the tokens of a tag and the number of tags are bounded.

use minijinja::machinery::{Token, tokenize};
use minijinja::syntax::SyntaxConfig;

use crate::Error;

/// Most bytes of a template; the longest known have 30 KB.
const MAX_SOURCE_BYTES: usize = 256 << 10;
/// Most tokens between `{{` and `}}` or `{%` and `%}`.
const MAX_TOKENS_PER_TAG: usize = 4096;
/// Most tags.
const MAX_TAGS: usize = 8192;

/// Refuses a template that is too long.
pub(super) fn size(source: &str) -> Result<(), Error> {
    if source.len() > MAX_SOURCE_BYTES {
        let reason = format!("it has {} bytes, more than {MAX_SOURCE_BYTES}", source.len());
        return Err(Error::Template(reason));
    }
    Ok(())
}

/// Refuses a template whose expressions could nest too deep.
pub(super) fn nesting(source: &str, syntax: &SyntaxConfig) -> Result<(), Error> {
    let refused = |what: String| Err(Error::Template(what));
    let (mut tags, mut tokens) = (0, 0);
    for token in tokenize(source, false, syntax.clone()) {
        let (token, _) = token.map_err(super::error)?;
        match token {
            Token::VariableStart | Token::BlockStart => {
                tags += 1;
                tokens = 0;
            }
            _ => tokens += 1,
        }
        if tags > MAX_TAGS {
            return refused(format!("it has more than {MAX_TAGS} tags"));
        }
        if tokens > MAX_TOKENS_PER_TAG {
            return refused(format!("a tag has more than {MAX_TOKENS_PER_TAG} tokens"));
        }
    }
    Ok(())
}

/// Takes out `{% generation %}` and `{% endgeneration %}`, which mark the assistant's words for training and render
/// nothing. An `if` with the same blanks round it stands in for them, so that white space comes out the same.
pub(super) fn without_generation_marks(source: &str) -> String {
    let mut result = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let (before, tag) = rest.split_at(start);
        result.push_str(before);
        let Some(end) = tag.find("%}") else {
            rest = tag;
            break;
        };
        let (tag, after) = tag.split_at(end + 2);
        let inner = &tag[2..tag.len() - 2];
        let name = inner.trim_matches(['-', '+']).trim();
        match name {
            "generation" => result.push_str(&tag.replacen(name, "if true", 1)),
            "endgeneration" => result.push_str(&tag.replacen(name, "endif", 1)),
            _ => result.push_str(tag),
        }
        rest = after;
    }
    result.push_str(rest);
    result
}

#[cfg(test)]
mod tests {
    use super::without_generation_marks;

    #[test]
    fn generation_marks_are_taken_out() {
        let source = "{% if a %}x{%- generation -%}y{% endgeneration %}{{ generation }}{% endif %}{% open";
        let expected = "{% if a %}x{%- if true -%}y{% endif %}{{ generation }}{% endif %}{% open";
        assert_eq!(without_generation_marks(source), expected);
    }
}
