//! What a linear layer reads: rows of activations in the form that its weights want, made where they arise.

use std::borrow::Cow;

use candle_core::Tensor;

use super::activations::{Activations, Builder};
use super::format::BLOCK;
use super::turned::{self, Turned};
use super::{Linear, Weights};
use crate::view::{is_cpu, with_f32};
use crate::{Cpu, Error, Result};

/// Rows of activations for linear layers: plain, or rounded to bytes once for all of them.
pub struct LinearInput(Form);

enum Form {
    Plain(Tensor),
    Rounded { tokens: usize, inner: usize, activations: Activations },
}

/// Rows that a product reads.
pub(super) struct Rows<'a> {
    pub tokens: usize,
    pub inner: usize,
    plain: &'a [f32],
    rounded: Option<Cow<'a, Activations>>,
    turned: Option<Turned>,
}

impl Rows<'_> {
    /// For packed weights.
    pub(super) fn rounded(&self) -> &Activations {
        self.rounded.as_ref().expect("rows are rounded where a matrix is packed")
    }

    /// `[tokens, inner]`, for dense weights.
    pub(super) fn plain(&self) -> &[f32] {
        self.plain
    }

    /// For dense weights, if there are many rows.
    pub(super) fn turned(&self) -> Option<&Turned> {
        self.turned.as_ref()
    }
}

impl From<Tensor> for LinearInput {
    fn from(x: Tensor) -> Self {
        Self(Form::Plain(x))
    }
}

impl LinearInput {
    /// Rows that were rounded.
    pub(crate) fn rounded(tokens: usize, inner: usize, activations: Activations) -> Self {
        Self(Form::Rounded { tokens, inner, activations })
    }

    /// `[tokens, inner]` as it is.
    ///
    /// # Errors
    /// [`Error::Shape`] if that is not a matrix.
    pub(super) fn dims(&self) -> Result<(usize, usize)> {
        match &self.0 {
            Form::Plain(x) => match x.dims() {
                &[tokens, inner] => Ok((tokens, inner)),
                other => Err(Error::shape("linear", format!("x {other:?} is not [t, in]"))),
            },
            Form::Rounded { tokens, inner, .. } => Ok((*tokens, *inner)),
        }
    }

    /// The rows in f32, for layers that are composed.
    ///
    /// # Errors
    /// [`Error::Shape`] if they were rounded for others.
    pub(super) fn tensor(&self) -> Result<&Tensor> {
        match &self.0 {
            Form::Plain(x) => Ok(x),
            Form::Rounded { .. } => Err(Error::shape("linear", "rows were rounded for other weights")),
        }
    }

    /// Lends the rows in the forms that `linears` want.
    pub(super) fn lend<R>(
        &self,
        cpu: Cpu,
        linears: &[&Linear],
        body: impl FnOnce(&Rows<'_>) -> Result<R>,
    ) -> Result<R> {
        let (tokens, inner) = self.dims()?;
        if let Some(other) = linears.iter().find(|linear| linear.0.inner != inner) {
            return Err(Error::shape("linear", format!("x [{tokens}, {inner}] against {other:?}")));
        }
        match &self.0 {
            Form::Plain(x) => with_f32("linear", x, |plain| {
                let rounds = linears.iter().any(|linear| linear.is_packed());
                let rounded = rounds.then(|| Cow::Owned(Activations::round(cpu, plain, inner)));
                let turns = tokens >= turned::FEWEST && linears.iter().any(|linear| linear.is_dense());
                let turned = turns.then(|| Turned::of(cpu, plain, inner));
                body(&Rows { tokens, inner, plain, rounded, turned })
            }),
            Form::Rounded { activations, .. } => {
                if !linears.iter().all(|linear| linear.is_packed()) {
                    return Err(Error::shape("linear", "rows were rounded for other weights"));
                }
                body(&Rows {
                    tokens,
                    inner,
                    plain: &[],
                    rounded: Some(Cow::Borrowed(activations)),
                    turned: None,
                })
            }
        }
    }
}

impl Linear {
    /// Whether activations are rounded for this layer.
    pub(crate) fn is_packed(&self) -> bool {
        matches!(self.0.weights, Weights::Packed(_))
    }

    fn is_dense(&self) -> bool {
        matches!(self.0.weights, Weights::Dense(_))
    }
}

/// A builder for rows of `inner`, if every reader wants them rounded and `x` is on the CPU.
pub(crate) fn builder_for(x: &Tensor, readers: &[&Linear], tokens: usize, inner: usize) -> Option<Builder> {
    let rounds = is_cpu(x) && inner.is_multiple_of(BLOCK) && readers.iter().all(|reader| reader.is_packed());
    rounds.then(|| Builder::new(tokens, inner))
}
