//! What protocols call the members of a request that only the model can judge, so that a refusal names what was sent.

/// The names of one request's members. [`Default`] is those of OpenAI's chat.
#[derive(Debug, Clone, PartialEq)]
pub struct Names {
    /// What the answer may be at all.
    pub constraint: &'static str,
    /// The functions.
    pub tools: &'static str,
    /// The schema within one of them.
    pub tool_schema: &'static str,
    /// Most tokens of the answer.
    pub max_new_tokens: &'static str,
    /// How tokens are chosen: the temperature.
    pub temperature: &'static str,
    /// How much the model thinks.
    pub effort: &'static str,
    /// Most tokens of that.
    pub budget: &'static str,
    /// How much the model says.
    pub verbosity: &'static str,
}

impl Default for Names {
    fn default() -> Self {
        Self {
            constraint: "response_format",
            tools: "tools",
            tool_schema: "function.parameters",
            max_new_tokens: "max_tokens",
            temperature: "temperature",
            effort: "reasoning_effort",
            budget: "thinking_budget",
            verbosity: "verbosity",
        }
    }
}

impl Names {
    /// The schema of a function, from 0.
    pub fn schema_of(&self, number: usize) -> String {
        format!("{}[{number}].{}", self.tools, self.tool_schema)
    }
}
