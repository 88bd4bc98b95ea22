//! What the document says of the API as a whole: its title, how to use it, what its groups are. Version and licence are
//! the package's.

use utoipa::OpenApi;

/// The document before any route is in it. Of the groups, [`complete()`](super::complete()) keeps those that are used.
pub fn about() -> utoipa::openapi::OpenApi {
    About::openapi()
}

#[derive(OpenApi)]
#[openapi(
    info(title = "sconce", description = DESCRIPTION),
    servers((url = "/", description = "This server")),
    tags(
        (name = "auth", description = "Sign in, refresh, sign out. 登录、刷新、注销。"),
        (name = "me", description = "Oneself: profile, password, keys, sessions, usage. 个人信息、密码、密钥、会话、用量。"),
        (name = "chat", description = "Chat in the envelope, over HTTP and WebSocket. 对话（HTTP 与 WebSocket）。"),
        (name = "users", description = "Who may sign in, and as what. 用户管理。"),
        (name = "teams", description = "Users who share models and keys. 团队管理。"),
        (name = "keys", description = "API keys of everybody. API 密钥管理。"),
        (name = "models", description = "Which models are served, and their state. 模型管理。"),
        (name = "sessions", description = "Who is signed in. 会话管理。"),
        (name = "usage", description = "What was used, by whom. 用量统计。"),
        (name = "audit", description = "What was done, by whom. 审计日志。"),
        (name = "settings", description = "How the server is set up. 服务器设置。"),
        (name = "openai", description = "The protocol of OpenAI's clients. 与 OpenAI 客户端兼容的接口。"),
        (name = "anthropic", description = "The protocol of Anthropic's clients. 与 Anthropic 客户端兼容的接口。"),
        (name = "ollama", description = "The protocol of Ollama's clients, where it is spoken. 与 Ollama 客户端兼容的接口（启用时）。"),
        (name = "probes", description = "For routers, probes and collectors, without a key. 健康检查与指标。")
    )
)]
struct About;

const DESCRIPTION: &str = "\
Language models on your own machines, with users, keys and an audit.

Every answer below `/api/` is `{\"code\", \"message\", \"data\"}`: `code` is 0 for success, else the number of an error, and \
the HTTP status is the true one. Below `/v1/` answers and errors are as OpenAI's clients expect them. Show an access token \
or an API key: `Authorization: Bearer …`. Messages follow `Accept-Language` (`en`, `zh`); tell errors apart by their number.

`/api/` 下的所有响应均为 `{\"code\", \"message\", \"data\"}`：成功时 `code` 为 0，失败时为业务错误码，HTTP 状态码始终真实。\
`/v1/` 下的响应与错误格式和 OpenAI 客户端兼容。认证方式：`Authorization: Bearer <JWT 或 API 密钥>`。\
提示信息按 `Accept-Language`（`en`、`zh`）返回；请以错误码而非文字区分错误。";
