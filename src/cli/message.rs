//! What the commands say to people, in their language. Errors and logs are English.

use crate::config::Environment;

/// A language the commands speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    /// The usual.
    English,
    /// Simplified Chinese.
    Chinese,
}

impl Language {
    /// The terminal's: the first of LC_ALL, LC_MESSAGES and LANG that is set.
    pub fn of(environment: &Environment) -> Self {
        let locale = ["LC_ALL", "LC_MESSAGES", "LANG"].iter().find_map(|name| environment.get(name));
        if locale.is_some_and(|locale| locale.starts_with("zh")) { Self::Chinese } else { Self::English }
    }

    /// All texts in this language.
    pub fn messages(self) -> &'static Messages {
        match self {
            Self::English => &ENGLISH,
            Self::Chinese => &CHINESE,
        }
    }
}

/// The texts.
#[derive(Debug)]
pub struct Messages {
    /// Before the address.
    pub ready: &'static str,
    /// Before the list of models.
    pub models: &'static str,
    /// Before how to sign in.
    pub sign_in: &'static str,
    /// No key is set.
    pub no_key: &'static str,
    /// A key is set.
    pub key: &'static str,
    /// Before the line to paste.
    pub try_it: &'static str,
    /// How to end.
    pub stop: &'static str,
    /// After the drain.
    pub stopped: &'static str,
    /// While the chat loads its model.
    pub loading: &'static str,
    /// The chat's commands.
    pub chat_help: &'static str,
    /// The conversation was forgotten.
    pub forgotten: &'static str,
    /// The answer was cut by Ctrl-C.
    pub interrupted: &'static str,
}

const ENGLISH: Messages = Messages {
    ready: "is ready at",
    models: "models",
    sign_in: "sign in",
    no_key: "not needed: without a key it answers this machine only; set SCONCE_API_KEY to ask for one",
    key: "send the key as `Authorization: Bearer KEY`; the line below takes it from SCONCE_API_KEY",
    try_it: "try it",
    stop: "Ctrl-C lets running answers finish and ends",
    stopped: "ended",
    loading: "loading the model",
    chat_help: "/reset forgets the conversation, /exit or Ctrl-D ends, Ctrl-C stops an answer",
    forgotten: "the conversation is forgotten",
    interrupted: "(stopped)",
};

const CHINESE: Messages = Messages {
    ready: "已就绪:",
    models: "模型",
    sign_in: "登录",
    no_key: "无需密钥:未设密钥时只应答本机;设置 SCONCE_API_KEY 即可要求密钥",
    key: "以 `Authorization: Bearer 密钥` 发送;下面一行从 SCONCE_API_KEY 读取",
    try_it: "试一试",
    stop: "按 Ctrl-C:等正在进行的回答结束后退出",
    stopped: "已结束",
    loading: "正在载入模型",
    chat_help: "/reset 忘记对话,/exit 或 Ctrl-D 退出,Ctrl-C 停止回答",
    forgotten: "对话已清空",
    interrupted: "(已停止)",
};

#[cfg(test)]
mod tests {
    use super::*;

    fn language(variables: &[(&str, &str)]) -> Language {
        Language::of(
            &variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        )
    }

    #[test]
    fn the_language_is_the_terminals() {
        assert_eq!(language(&[]), Language::English);
        assert_eq!(language(&[("LANG", "zh_CN.UTF-8")]), Language::Chinese);
        assert_eq!(language(&[("LANG", "zh_CN.UTF-8"), ("LC_ALL", "C")]), Language::English);
        assert_eq!(language(&[("LC_ALL", ""), ("LANG", "zh_TW")]), Language::Chinese);
    }
}
