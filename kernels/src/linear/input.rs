//! What a linear layer reads: rows of activations in the form that its weights want, made where they arise.

use candle_core::Tensor;

use super::activations::Activations;
use super::format::BLOCK;
use super::narrowed::Narrowed;
use super::rounded::{Builder, Rounded};
use super::rounding::Rounding;
use super::turned::{self, Turned};
use super::{Linear, Weights};
use crate::view::{is_cpu, with_f32};
use crate::{Cpu, Error, Result};

/// Rows of activations for linear layers: plain, or rounded once for all of them.
pub struct LinearInput(Form);

enum Form {
    Plain(Tensor),
    Rounded { tokens: usize, inner: usize, rounded: Rounded },
}

/// Rows that a product reads.
pub(super) struct Rows<'a> {
    pub tokens: usize,
    pub inner: usize,
    plain: &'a [f32],
    /// In each form that is wanted; there is one, but for matrices of both arithmetics over plain rows.
    rounded: &'a [Rounded],
    turned: Option<Turned>,
}

impl Rows<'_> {
    /// For packed weights whose rounding is [`Rounding::Bytes`].
    pub(super) fn bytes(&self) -> &Activations {
        let bytes = self.rounded.iter().find_map(|rounded| match rounded {
            Rounded::Bytes(bytes) => Some(bytes),
            Rounded::Narrowed(_) => None,
        });
        bytes.expect("rows are rounded as the matrices want them")
    }

    /// For packed weights whose rounding is [`Rounding::Bfloat16`].
    pub(super) fn narrowed(&self) -> &Narrowed {
        let narrowed = self.rounded.iter().find_map(|rounded| match rounded {
            Rounded::Narrowed(narrowed) => Some(narrowed),
            Rounded::Bytes(_) => None,
        });
        narrowed.expect("rows are rounded as the matrices want them")
    }

    /// Whether there are rows for [`Rounding::Bfloat16`].
    pub(super) fn is_narrowed(&self) -> bool {
        self.rounded.iter().any(|rounded| rounded.rounding() == Rounding::Bfloat16)
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
    pub(crate) fn rounded(tokens: usize, inner: usize, rounded: Rounded) -> Self {
        Self(Form::Rounded { tokens, inner, rounded })
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
                let rounded: Vec<Rounded> = [Rounding::Bytes, Rounding::Bfloat16]
                    .into_iter()
                    .filter(|form| linears.iter().any(|linear| linear.rounding() == Some(*form)))
                    .map(|form| Rounded::of(form, cpu, plain, inner))
                    .collect();
                let turns = tokens >= turned::FEWEST && linears.iter().any(|linear| linear.is_dense());
                let turned = turns.then(|| Turned::of(cpu, plain, inner));
                body(&Rows { tokens, inner, plain, rounded: &rounded, turned })
            }),
            Form::Rounded { rounded, .. } => {
                if !linears.iter().all(|linear| linear.rounding() == Some(rounded.rounding())) {
                    return Err(Error::shape("linear", "rows were rounded for other weights"));
                }
                let rounded = std::slice::from_ref(rounded);
                body(&Rows { tokens, inner, plain: &[], rounded, turned: None })
            }
        }
    }
}

impl Linear {
    /// How activations are rounded for this layer, if they are.
    pub(super) fn rounding(&self) -> Option<Rounding> {
        match &self.0.weights {
            Weights::Packed(panels) => Some(panels.rounding()),
            Weights::Dense(_) | Weights::Composed(_) => None,
        }
    }

    fn is_dense(&self) -> bool {
        matches!(self.0.weights, Weights::Dense(_))
    }
}

/// A builder for rows of `inner`, if every reader wants them rounded, and alike, and `x` is on the CPU.
pub(crate) fn builder_for(x: &Tensor, readers: &[&Linear], tokens: usize, inner: usize) -> Option<Builder> {
    let rounding = readers.first()?.rounding()?;
    let rounds = is_cpu(x)
        && inner.is_multiple_of(BLOCK)
        && readers.iter().all(|reader| reader.rounding() == Some(rounding));
    rounds.then(|| Builder::new(rounding, tokens, inner))
}
