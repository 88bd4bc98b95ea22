//! What the commands say to people, in their language. Errors and logs are English.

use crate::config::Environment;
use crate::language::Language;

/// The terminal's language: that of the first of LC_ALL, LC_MESSAGES and LANG that is set.
pub fn language_of(environment: &Environment) -> Language {
    let locale = ["LC_ALL", "LC_MESSAGES", "LANG"].iter().find_map(|name| environment.get(name));
    locale.map_or(Language::English, Language::of_locale)
}

/// All texts in a language.
pub fn messages(language: Language) -> &'static Messages {
    match language {
        Language::English => &ENGLISH,
        Language::Chinese => &CHINESE,
    }
}

/// The texts.
#[derive(Debug)]
pub struct Messages {
    /// Before the address.
    pub ready: &'static str,
    /// Before the list of models.
    pub models: &'static str,
    /// After a model that is not loaded.
    pub on_demand: &'static str,
    /// Before how to sign in.
    pub sign_in: &'static str,
    /// No key is set.
    pub no_key: &'static str,
    /// A key is needed.
    pub key: &'static str,
    /// A key is needed, and the first is in the line to paste.
    pub first_key: &'static str,
    /// Before the first user's name and password.
    pub owner: &'static str,
    /// In place of a password that was not made here.
    pub configured_password: &'static str,
    /// Before the first key.
    pub first_api_key: &'static str,
    /// That the password and the key are shown once.
    pub owner_once: &'static str,
    /// That the key is.
    pub key_once: &'static str,
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
    /// A user was made, and the password follows.
    pub user_made: &'static str,
    /// A password was reset, and follows.
    pub password_reset: &'static str,
    /// A key was made, and follows.
    pub key_made: &'static str,
    /// A backup is in the database's place.
    pub restored: &'static str,
    /// Before the path of the replaced database.
    pub before_restore: &'static str,
}

const ENGLISH: Messages = Messages {
    ready: "is ready at",
    models: "models",
    on_demand: "loaded on first use",
    sign_in: "sign in",
    no_key: "not needed for using models: `auth` is off, and only this machine is answered",
    key: "send a key as `Authorization: Bearer KEY`; `sconce admin create-key` makes one",
    first_key: "send a key as `Authorization: Bearer KEY`; the line below has the first one",
    owner: "administrator",
    configured_password: "the password of SCONCE_ADMIN_PASSWORD",
    first_api_key: "first API key",
    owner_once: "shown this once: keep them; the password must be changed first (POST /api/v1/me/password, see docs/operations.md); the key works at once",
    key_once: "the key is shown this once: keep it",
    try_it: "try it",
    stop: "lets running answers finish and ends",
    stopped: "ended",
    loading: "loading the model",
    chat_help: "/reset forgets the conversation, /exit or Ctrl-D ends, Ctrl-C stops an answer",
    forgotten: "the conversation is forgotten",
    interrupted: "(stopped)",
    user_made: "made; the password, shown this once and to be changed at the first sign-in:",
    password_reset: "all sessions have ended; the new password, shown this once and to be changed at the next sign-in:",
    key_made: "a new key, shown this once:",
    restored: "restored; everybody must sign in again, and keys are as they were when the backup was made",
    before_restore: "what was there before",
};

const CHINESE: Messages = Messages {
    ready: "已就绪：",
    models: "模型",
    on_demand: "首次使用时载入",
    sign_in: "登录",
    no_key: "使用模型无需密钥：`auth` 已关闭，且只应答本机",
    key: "以 `Authorization: Bearer 密钥` 发送；用 `sconce admin create-key` 创建密钥",
    first_key: "以 `Authorization: Bearer 密钥` 发送；下面一行已含第一个密钥",
    owner: "管理员",
    configured_password: "SCONCE_ADMIN_PASSWORD 所设的密码",
    first_api_key: "第一个 API 密钥",
    owner_once: "密码与密钥仅显示这一次，请妥善保存；登录后须先修改密码（POST /api/v1/me/password），密钥可立即使用",
    key_once: "密钥仅显示这一次，请妥善保存",
    try_it: "试一试",
    stop: "等正在进行的回答结束后退出",
    stopped: "已结束",
    loading: "正在载入模型",
    chat_help: "/reset 忘记对话，/exit 或 Ctrl-D 退出，Ctrl-C 停止回答",
    forgotten: "对话已清空",
    interrupted: "（已停止）",
    user_made: "已创建；密码仅显示这一次，首次登录时必须修改：",
    password_reset: "所有会话均已结束；新密码仅显示这一次，下次登录时必须修改：",
    key_made: "新密钥，仅显示这一次：",
    restored: "已恢复；所有人须重新登录，密钥回到备份时的状态",
    before_restore: "原有数据库",
};

#[cfg(test)]
mod tests {
    use super::*;

    fn language(variables: &[(&str, &str)]) -> Language {
        language_of(
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
