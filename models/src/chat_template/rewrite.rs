//! A template's syntax tree with checks put in: before each operation whose result or cost can be larger than what the
//! engine counts, the operands go through a filter of `functions.rs` that enters them in the account.
//!
//! The engine looks filters up by name in its own table only, and the names begin with a character that no template can
//! write, so a template can neither reach nor replace them. Nothing is folded at compile time: `'-' * 10**10` is a
//! filter call here, and fails when it runs.

use minijinja::Value;
use minijinja::machinery::Span;
use minijinja::machinery::ast::{
    BinOp, BinOpKind, Call, CallArg, CallBlock, Compare, CompareOp, CompareOpKind, Const, Do, EmitExpr, Expr,
    Filter, ForLoop, GetAttr, GetItem, IfCond, IfExpr, List, Macro, Map, Set, SetBlock, Slice, Spanned, Stmt,
    Template, Test, Tuple, UnaryOp, UnaryOpKind, Var, WithBlock,
};

use super::functions::{CONTAINER, DEEP, METHOD, MULTIPLY, OPERAND, SHALLOW, STORE};

/// Filters that look at the outermost elements only.
const SHALLOW_FILTERS: [&str; 14] = [
    "length",
    "count",
    "first",
    "last",
    "items",
    "list",
    "reverse",
    "default",
    "d",
    "safe",
    "attr",
    "bool",
    "selectattr",
    "rejectattr",
];

/// Names with a meaning for the engine that a check would hide.
const ENGINE_NAMES: [&str; 4] = ["loop", "self", "super", "caller"];

type Rewritten<T> = Result<T, String>;

/// The tree of a template with its checks.
pub(super) fn statement<'a>(stmt: &Stmt<'a>) -> Rewritten<Stmt<'a>> {
    Ok(match stmt {
        Stmt::Template(node) => {
            Stmt::Template(Spanned::new(Template { children: body(&node.children)? }, node.span()))
        }
        Stmt::EmitExpr(node) => {
            Stmt::EmitExpr(Spanned::new(EmitExpr { expr: expression(&node.expr)? }, node.span()))
        }
        // As an expression, raw text goes through the formatter, which counts it.
        Stmt::EmitRaw(node) => {
            let expr = constant(Value::from(node.raw), node.span());
            Stmt::EmitExpr(Spanned::new(EmitExpr { expr }, node.span()))
        }
        Stmt::ForLoop(node) => Stmt::ForLoop(Spanned::new(for_loop(node)?, node.span())),
        Stmt::IfCond(node) => {
            let rewritten = IfCond {
                expr: expression(&node.expr)?,
                true_body: body(&node.true_body)?,
                false_body: body(&node.false_body)?,
            };
            Stmt::IfCond(Spanned::new(rewritten, node.span()))
        }
        Stmt::WithBlock(node) => {
            let assignments = node.assignments.iter();
            let assignments = assignments.map(|(target, expr)| Ok((copy_target(target)?, stored(expr)?)));
            let rewritten =
                WithBlock { assignments: assignments.collect::<Rewritten<_>>()?, body: body(&node.body)? };
            Stmt::WithBlock(Spanned::new(rewritten, node.span()))
        }
        Stmt::Set(node) => {
            let rewritten = Set { target: copy_target(&node.target)?, expr: stored(&node.expr)? };
            Stmt::Set(Spanned::new(rewritten, node.span()))
        }
        Stmt::SetBlock(node) => {
            let filter = node.filter.as_ref().map(expression).transpose()?;
            let rewritten = SetBlock { target: copy_target(&node.target)?, filter, body: body(&node.body)? };
            Stmt::SetBlock(Spanned::new(rewritten, node.span()))
        }
        Stmt::FilterBlock(node) => {
            let rewritten = minijinja::machinery::ast::FilterBlock {
                filter: expression(&node.filter)?,
                body: body(&node.body)?,
            };
            Stmt::FilterBlock(Spanned::new(rewritten, node.span()))
        }
        Stmt::Macro(node) => Stmt::Macro(Spanned::new(macro_declaration(node)?, node.span())),
        Stmt::CallBlock(node) => {
            let rewritten = CallBlock {
                call: Spanned::new(call(&node.call)?, node.call.span()),
                macro_decl: Spanned::new(macro_declaration(&node.macro_decl)?, node.macro_decl.span()),
            };
            Stmt::CallBlock(Spanned::new(rewritten, node.span()))
        }
        Stmt::Do(node) => {
            let rewritten = Do { call: Spanned::new(call(&node.call)?, node.call.span()) };
            Stmt::Do(Spanned::new(rewritten, node.span()))
        }
        Stmt::Continue(node) => {
            Stmt::Continue(Spanned::new(minijinja::machinery::ast::Continue, node.span()))
        }
        Stmt::Break(node) => Stmt::Break(Spanned::new(minijinja::machinery::ast::Break, node.span())),
        Stmt::AutoEscape(_) => return Err("`autoescape` has no meaning in a chat template".into()),
        Stmt::Block(_) | Stmt::Import(_) | Stmt::FromImport(_) | Stmt::Extends(_) | Stmt::Include(_) => {
            return Err("a chat template cannot use other templates".into());
        }
    })
}

fn body<'a>(statements: &[Stmt<'a>]) -> Rewritten<Vec<Stmt<'a>>> {
    statements.iter().map(statement).collect()
}

fn for_loop<'a>(node: &ForLoop<'a>) -> Rewritten<ForLoop<'a>> {
    Ok(ForLoop {
        target: copy_target(&node.target)?,
        iter: checked(SHALLOW, &node.iter)?,
        filter_expr: node.filter_expr.as_ref().map(expression).transpose()?,
        recursive: node.recursive,
        body: body(&node.body)?,
        else_body: body(&node.else_body)?,
    })
}

fn macro_declaration<'a>(node: &Macro<'a>) -> Rewritten<Macro<'a>> {
    Ok(Macro {
        name: node.name,
        args: node.args.iter().map(copy_target).collect::<Rewritten<_>>()?,
        defaults: expressions(&node.defaults)?,
        body: body(&node.body)?,
    })
}

/// What is assigned to: a name, an attribute of a namespace, or several of them.
fn copy_target<'a>(target: &Expr<'a>) -> Rewritten<Expr<'a>> {
    Ok(match target {
        Expr::Var(node) => Expr::Var(Spanned::new(Var { id: node.id }, node.span())),
        Expr::GetAttr(node) => {
            let rewritten = GetAttr { expr: copy_target(&node.expr)?, name: node.name };
            Expr::GetAttr(Spanned::new(rewritten, node.span()))
        }
        Expr::List(node) => {
            let items = node.items.iter().map(copy_target).collect::<Rewritten<_>>()?;
            Expr::List(Spanned::new(List { items }, node.span()))
        }
        Expr::Tuple(node) => {
            let items = node.items.iter().map(copy_target).collect::<Rewritten<_>>()?;
            Expr::Tuple(Spanned::new(Tuple { items }, node.span()))
        }
        other => return Err(format!("a {} cannot be assigned to", other.description())),
    })
}

fn constant<'a>(value: Value, span: Span) -> Expr<'a> {
    Expr::Const(Spanned::new(Const { value }, span))
}

/// The expression, put through one of our filters.
fn checked<'a>(filter: &'static str, expr: &Expr<'a>) -> Rewritten<Expr<'a>> {
    let rewritten = expression(expr)?;
    let is_plain =
        matches!(expr, Expr::Const(_)) || matches!(expr, Expr::Var(var) if ENGINE_NAMES.contains(&var.id));
    Ok(if is_plain { rewritten } else { apply(filter, Some(rewritten), Vec::new(), expr.span()) })
}

fn stored<'a>(expr: &Expr<'a>) -> Rewritten<Expr<'a>> {
    checked(STORE, expr)
}

fn apply<'a>(name: &'a str, expr: Option<Expr<'a>>, args: Vec<CallArg<'a>>, span: Span) -> Expr<'a> {
    Expr::Filter(Spanned::new(Filter { name, expr, args }, span))
}

fn expressions<'a>(list: &[Expr<'a>]) -> Rewritten<Vec<Expr<'a>>> {
    list.iter().map(expression).collect()
}

fn optional<'a>(expr: &Option<Expr<'a>>) -> Rewritten<Option<Expr<'a>>> {
    expr.as_ref().map(expression).transpose()
}

/// An expression with its checks.
fn expression<'a>(expr: &Expr<'a>) -> Rewritten<Expr<'a>> {
    Ok(match expr {
        Expr::Var(node) => Expr::Var(Spanned::new(Var { id: node.id }, node.span())),
        Expr::Const(node) => constant(node.value.clone(), node.span()),
        Expr::Slice(node) => {
            let rewritten = Slice {
                expr: checked(SHALLOW, &node.expr)?,
                start: optional(&node.start)?,
                stop: optional(&node.stop)?,
                step: optional(&node.step)?,
            };
            Expr::Slice(Spanned::new(rewritten, node.span()))
        }
        Expr::UnaryOp(node) => {
            // The kind cannot be copied.
            let op = if matches!(node.op, UnaryOpKind::Not) { UnaryOpKind::Not } else { UnaryOpKind::Neg };
            Expr::UnaryOp(Spanned::new(UnaryOp { op, expr: expression(&node.expr)? }, node.span()))
        }
        Expr::BinOp(node) => binary(node)?,
        Expr::Compare(node) => comparison(node)?,
        Expr::IfExpr(node) => {
            let rewritten = IfExpr {
                test_expr: expression(&node.test_expr)?,
                true_expr: expression(&node.true_expr)?,
                false_expr: optional(&node.false_expr)?,
            };
            Expr::IfExpr(Spanned::new(rewritten, node.span()))
        }
        Expr::Filter(node) => filter(node)?,
        Expr::Test(node) => {
            let rewritten = Test {
                name: node.name,
                expr: checked(SHALLOW, &node.expr)?,
                args: arguments(&node.args, DEEP)?,
            };
            Expr::Test(Spanned::new(rewritten, node.span()))
        }
        Expr::GetAttr(node) => Expr::GetAttr(Spanned::new(
            GetAttr { expr: expression(&node.expr)?, name: node.name },
            node.span(),
        )),
        Expr::GetItem(node) => {
            let rewritten =
                GetItem { expr: expression(&node.expr)?, subscript_expr: expression(&node.subscript_expr)? };
            Expr::GetItem(Spanned::new(rewritten, node.span()))
        }
        Expr::Call(node) => Expr::Call(Spanned::new(call(node)?, node.span())),
        Expr::List(node) => Expr::List(Spanned::new(List { items: expressions(&node.items)? }, node.span())),
        Expr::Tuple(node) => {
            Expr::Tuple(Spanned::new(Tuple { items: expressions(&node.items)? }, node.span()))
        }
        Expr::Map(node) => {
            let rewritten = Map { keys: expressions(&node.keys)?, values: expressions(&node.values)? };
            Expr::Map(Spanned::new(rewritten, node.span()))
        }
    })
}

fn binary<'a>(node: &Spanned<BinOp<'a>>) -> Rewritten<Expr<'a>> {
    let (left, right) = match node.op {
        BinOpKind::Mul => {
            let right = CallArg::Pos(expression(&node.right)?);
            return Ok(apply(MULTIPLY, Some(expression(&node.left)?), vec![right], node.span()));
        }
        // The result is at most as long as both operands together, so it is enough that neither is too long.
        BinOpKind::Add | BinOpKind::Concat => (checked(OPERAND, &node.left)?, checked(OPERAND, &node.right)?),
        BinOpKind::In => (checked(DEEP, &node.left)?, checked(CONTAINER, &node.right)?),
        BinOpKind::Eq | BinOpKind::Ne | BinOpKind::Lt | BinOpKind::Lte | BinOpKind::Gt | BinOpKind::Gte => {
            (checked(DEEP, &node.left)?, checked(DEEP, &node.right)?)
        }
        BinOpKind::ScAnd
        | BinOpKind::ScOr
        | BinOpKind::Sub
        | BinOpKind::Div
        | BinOpKind::FloorDiv
        | BinOpKind::Rem
        | BinOpKind::Pow => (expression(&node.left)?, expression(&node.right)?),
    };
    Ok(Expr::BinOp(Spanned::new(BinOp { op: node.op, left, right }, node.span())))
}

fn comparison<'a>(node: &Spanned<Compare<'a>>) -> Rewritten<Expr<'a>> {
    let mut ops = Vec::with_capacity(node.ops.len());
    for op in &node.ops {
        let depth = if matches!(op.op, CompareOpKind::In | CompareOpKind::NotIn) { CONTAINER } else { DEEP };
        ops.push(CompareOp { op: op.op, expr: checked(depth, &op.expr)? });
    }
    Ok(Expr::Compare(Spanned::new(Compare { expr: checked(DEEP, &node.expr)?, ops }, node.span())))
}

fn filter<'a>(node: &Spanned<Filter<'a>>) -> Rewritten<Expr<'a>> {
    let depth = if SHALLOW_FILTERS.contains(&node.name) { SHALLOW } else { DEEP };
    let input = match &node.expr {
        Some(expr) => checked(depth, expr)?,
        // A filter over a block: its text is what comes in.
        None => apply(depth, None, Vec::new(), node.span()),
    };
    Ok(apply(node.name, Some(input), arguments(&node.args, DEEP)?, node.span()))
}

fn call<'a>(node: &Call<'a>) -> Rewritten<Call<'a>> {
    let (expr, depth) = match &node.expr {
        // A method: its object is worked on. Macros and functions only take their arguments over.
        Expr::GetAttr(method) => {
            let rewritten = GetAttr { expr: checked(METHOD, &method.expr)?, name: method.name };
            (Expr::GetAttr(Spanned::new(rewritten, method.span())), DEEP)
        }
        other => (expression(other)?, STORE),
    };
    Ok(Call { expr, args: arguments(&node.args, depth)? })
}

fn arguments<'a>(args: &[CallArg<'a>], depth: &'static str) -> Rewritten<Vec<CallArg<'a>>> {
    let argument = |expr: &Expr<'a>| checked(depth, expr);
    args.iter()
        .map(|arg| {
            Ok(match arg {
                CallArg::Pos(expr) => CallArg::Pos(argument(expr)?),
                CallArg::Kwarg(name, expr) => CallArg::Kwarg(name, argument(expr)?),
                CallArg::PosSplat(expr) => CallArg::PosSplat(argument(expr)?),
                CallArg::KwargSplat(expr) => CallArg::KwargSplat(argument(expr)?),
            })
        })
        .collect()
}
