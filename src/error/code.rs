//! The catalogue of errors: number, name, and what it says in both languages. Codes are added, never changed.
//!
//! The first three digits of a number are its HTTP status, with one exception: 40001, the literal of the API
//! specification, is sent as 401.

use crate::language::Language;

/// One row: variant, number, name on `/v1` and in `x-error-code` runbooks, English, Chinese.
macro_rules! catalogue {
    ($($variant:ident = $number:literal, $name:literal, $english:literal, $chinese:literal;)*) => {
        /// An entry of the catalogue.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Code {
            $(#[doc = $english] $variant,)*
        }

        impl Code {
            /// All of them, by number.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The number: three digits of status, two of reason.
            pub const fn number(self) -> u32 {
                match self { $(Self::$variant => $number,)* }
            }

            /// The stable name, `snake_case`: `error.code` in OpenAI's shape.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// What it means, in a language.
            pub const fn text(self, language: Language) -> &'static str {
                match (self, language) {
                    $((Self::$variant, Language::English) => $english,
                      (Self::$variant, Language::Chinese) => $chinese,)*
                }
            }
        }
    };
}

catalogue! {
    InvalidApiKey = 40001, "invalid_api_key", "Invalid API Key", "API 密钥无效";
    InvalidJson = 40002, "invalid_json", "The body is not valid JSON", "请求体不是合法的 JSON";
    InvalidValue = 40003, "invalid_value", "A value is not valid", "参数值无效";
    UnknownParameter = 40004, "unknown_parameter", "A field is unknown or cannot be set", "存在未知或不可设置的字段";
    OutOfRange = 40005, "invalid_value", "A number is out of range", "数值超出允许范围";
    ContextLengthExceeded = 40006, "context_length_exceeded", "The prompt does not fit into the model's context", "输入超出模型的上下文长度";
    MaxTokensAboveLimit = 40007, "invalid_value", "More tokens are asked for than may be generated", "max_tokens 超过允许的上限";
    TemplateError = 40009, "template_error", "The model's chat template cannot render this conversation", "模型的对话模板无法处理该对话";
    UnsupportedParameter = 40010, "unsupported_parameter", "A parameter is not supported", "不支持该参数";
    SourceNotAllowed = 40011, "source_not_allowed", "The source's address or path is not allowed", "不允许使用该来源地址或路径";
    ModelFileInvalid = 40012, "model_file_invalid", "The model's files are not valid", "模型文件无效";
    ModelFailed = 40013, "model_failed", "The model cannot be used", "模型无法使用";
    UnsupportedModel = 40014, "unsupported_model", "The model cannot do this", "该模型不支持此操作";
    MissingParameter = 40015, "missing_required_parameter", "A required field is missing", "缺少必填字段";
    WeakPassword = 40016, "weak_password", "The password is too short or too common", "密码太短或过于常见";
    PreviousResponseNotFound = 40017, "previous_response_not_found", "The response that this one goes on from does not exist", "要继续的上一个响应不存在";
    MissingCredentials = 40101, "missing_api_key", "No credentials: send `Authorization: Bearer` with an API key or an access token", "缺少凭证：请在 Authorization: Bearer 中提供 API 密钥或访问令牌";
    WrongPassword = 40102, "wrong_password", "Wrong user name or password", "用户名或密码错误";
    AccessTokenExpired = 40103, "access_token_expired", "The access token has expired: refresh it or sign in again", "访问令牌已过期，请刷新或重新登录";
    AccessTokenInvalid = 40104, "access_token_invalid", "The access token is not valid: sign in again", "访问令牌无效，请重新登录";
    RefreshTokenInvalid = 40105, "refresh_token_invalid", "The refresh token is not valid or has expired: sign in again", "刷新令牌无效或已过期，请重新登录";
    RefreshTokenReused = 40106, "refresh_token_reused", "The refresh token was used before: the session is ended, sign in again", "刷新令牌已被使用过，会话已终止，请重新登录";
    ApiKeyExpired = 40107, "expired_api_key", "The API key has expired", "API 密钥已过期";
    ApiKeyDisabled = 40108, "revoked_api_key", "The API key is disabled", "API 密钥已被禁用";
    TicketInvalid = 40110, "ticket_invalid", "The ticket is not valid: it was used before, or its time is over", "票据无效：已被使用或已过期";
    PermissionMissing = 40301, "permission_denied", "Your role does not allow this", "您的角色没有此权限";
    ScopeMissing = 40302, "scope_not_allowed", "The API key's scopes do not allow this", "该 API 密钥的授权范围不允许此操作";
    ModelNotAllowed = 40303, "model_not_allowed", "The API key may not use this model", "该 API 密钥不允许使用此模型";
    AddressNotAllowed = 40304, "address_not_allowed", "The API key may not be used from this address", "不允许从该 IP 地址使用此 API 密钥";
    AccountDisabled = 40305, "account_disabled", "The account is disabled", "账户已被禁用";
    OriginNotAllowed = 40306, "origin_not_allowed", "Requests from this origin are not accepted", "不接受来自该来源站点的请求";
    PasswordChangeRequired = 40307, "password_change_required", "The password must be changed first: POST /api/v1/me/password", "必须先修改密码：POST /api/v1/me/password";
    NotFound = 40401, "not_found", "There is nothing here", "资源不存在";
    ModelNotFound = 40402, "model_not_found", "The model does not exist", "模型不存在";
    MethodNotAllowed = 40501, "method_not_allowed", "This URL does not know this method", "该地址不支持此请求方法";
    RequestTimeout = 40801, "request_timeout", "The body did not arrive in time", "请求体未能及时到达";
    AlreadyExists = 40901, "already_exists", "It exists already", "已存在";
    StateConflict = 40902, "state_conflict", "This contradicts the present state", "与当前状态冲突";
    QuotaExceeded = 40903, "quota_exceeded", "There is as much as there may be: delete something first", "已达到配额上限，请先删除部分内容";
    RequestTooLarge = 41301, "request_too_large", "The body is too large", "请求体过大";
    TooManyItems = 41302, "too_many_items", "The body is nested too deeply or has too many items", "请求体嵌套过深或条目过多";
    UnsupportedMediaType = 41501, "unsupported_media_type", "The body must be JSON: send `Content-Type: application/json`", "请求体必须是 JSON：请设置 Content-Type: application/json";
    Misdirected = 42101, "misdirected_request", "This server does not answer to this host name", "该服务器不响应此主机名";
    RateLimited = 42901, "rate_limit_exceeded", "Too many requests", "请求过于频繁";
    SignInThrottled = 42904, "sign_in_throttled", "Too many failed attempts to sign in: wait, then try again", "登录失败次数过多，请稍后再试";
    ModelOverloaded = 42910, "model_overloaded", "The model's queue is full: try again shortly", "模型队列已满，请稍后重试";
    ModelLoading = 42911, "model_loading", "The model is still loading: try again shortly", "模型正在加载，请稍后重试";
    ModelOutOfMemory = 42912, "model_out_of_memory", "There is no memory for the model now", "当前没有足够内存加载该模型";
    DatabaseBusy = 42913, "database_busy", "Too many requests wait for the database: try again shortly", "等待数据库的请求过多，请稍后重试";
    HeadersTooLarge = 43101, "headers_too_large", "The request's headers are too large", "请求头过大";
    Internal = 50001, "internal_error", "Internal error: the request id finds it in the server's log", "内部错误：可凭请求 ID 在服务器日志中查找";
    EngineFault = 50002, "engine_fault", "The engine failed this request", "推理引擎处理该请求时出错";
    EngineLost = 50003, "engine_lost", "The engine stopped during this request", "推理引擎在处理该请求时停止";
    Unavailable = 50301, "unavailable", "The server is going away or not ready: try another replica, or again shortly", "服务器正在关闭或尚未就绪，请稍后重试";
    DatabaseUnavailable = 50303, "database_unavailable", "The database cannot be reached: try again shortly", "数据库暂不可用，请稍后重试";
    Timeout = 50401, "timeout", "The deadline passed", "已超过处理时限";
    DiskFull = 50701, "disk_full", "The disk is full", "磁盘空间不足";
}

impl Code {
    /// The HTTP status.
    pub const fn status(self) -> u16 {
        match self {
            Self::InvalidApiKey => 401,
            other => (other.number() / 100) as u16,
        }
    }

    /// Whether the fault is ours: such texts are logged, not sent.
    pub const fn is_internal(self) -> bool {
        self.status() == 500
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn numbers_begin_with_their_status_except_the_one() {
        for code in Code::ALL {
            let follows = u32::from(code.status()) == code.number() / 100;
            assert_eq!(follows, *code != Code::InvalidApiKey, "{code:?}");
        }
        assert_eq!((Code::InvalidApiKey.number(), Code::InvalidApiKey.status()), (40001, 401));
    }

    #[test]
    fn numbers_are_unique_and_in_order() {
        let numbers: Vec<_> = Code::ALL.iter().map(|code| code.number()).collect();
        let sorted: BTreeSet<_> = numbers.iter().copied().collect();
        assert_eq!(numbers, sorted.into_iter().collect::<Vec<_>>());
    }

    #[test]
    fn every_code_speaks_both_languages() {
        for code in Code::ALL {
            let (english, chinese) = (code.text(Language::English), code.text(Language::Chinese));
            assert!(english.is_ascii() && english.len() > 5, "{code:?}");
            assert!(chinese.chars().any(|c| ('\u{4e00}'..='\u{9fff}').contains(&c)), "{code:?}");
        }
    }
}
