//! Where a layer finds its weights: a place in the tree of tensor names.
//!
//! Not a weight format. It also adds up the memory that everything taken from it holds.

use std::cell::Cell;
use std::fmt::Display;

use candle_core::Tensor;
use sconce_kernels::Linear;

use crate::Error;
use crate::weights::Weights;

/// A place in the tree of tensor names, for example `model.layers.3.mlp`.
#[derive(Clone)]
pub struct Source<'a> {
    weights: &'a dyn Weights,
    bytes: &'a Cell<u64>,
    prefix: String,
}

impl<'a> Source<'a> {
    /// The root of the tree. What is loaded is added to `bytes`.
    pub fn new(weights: &'a dyn Weights, bytes: &'a Cell<u64>) -> Self {
        Self { weights, bytes, prefix: String::new() }
    }

    /// The place `part` below this one.
    pub fn at(&self, part: impl Display) -> Self {
        Self { weights: self.weights, bytes: self.bytes, prefix: self.name(&part.to_string()) }
    }

    /// The first of these places that has the tensor `probe` below it; the last one if none has.
    /// Checkpoints of one architecture differ in such a prefix by the class they were saved from.
    pub fn first_with(&self, places: &[&str], probe: &str) -> Self {
        let mut place = self.clone();
        for part in places {
            place = if part.is_empty() { self.clone() } else { self.at(part) };
            if place.contains(probe) {
                return place;
            }
        }
        place
    }

    /// Whether there is such a tensor.
    pub fn contains(&self, name: &str) -> bool {
        self.weights.contains(&self.name(name))
    }

    /// The shape of a tensor, none if it is not there.
    pub fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.weights.shape(&self.name(name))
    }

    /// Loads a tensor as f32.
    ///
    /// # Errors
    /// [`Error::MissingTensor`], [`Error::Shape`], or what reading it says.
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor, Error> {
        let tensor = self.weights.tensor(&self.name(name), shape)?;
        self.count(4 * tensor.elem_count() as u64);
        Ok(tensor)
    }

    /// Loads `<name>.weight` `[out, inner]`, and `<name>.bias` `[out]` if there is to be one, in their own type.
    ///
    /// # Errors
    /// [`Error::MissingTensor`], [`Error::Shape`], or what reading it says.
    pub fn linear(&self, name: &str, out: usize, inner: usize, bias: bool) -> Result<Linear, Error> {
        let name = self.name(name);
        let bias = bias.then(|| format!("{name}.bias"));
        let linear = self.weights.linear(&format!("{name}.weight"), out, inner, bias.as_deref())?;
        self.count(linear.memory_bytes());
        Ok(linear)
    }

    /// Bytes of everything loaded so far, from this place and all others of the tree.
    pub fn bytes(&self) -> u64 {
        self.bytes.get()
    }

    /// The root of the tree.
    pub fn root(&self) -> Self {
        Self::new(self.weights, self.bytes)
    }

    fn count(&self, bytes: u64) {
        self.bytes.set(self.bytes.get() + bytes);
    }

    fn name(&self, name: &str) -> String {
        if self.prefix.is_empty() { name.to_owned() } else { format!("{}.{name}", self.prefix) }
    }
}
