//! Models and batches whose types are not known.
//!
//! A chain is compiled once for all models of a program: [`Compressor<M, I>`](crate::Compressor) is
//! a shell around a chain of [`AnyModel`] and [`AnyBatch`], and so are all other types and functions
//! that are generic over the model. What is compiled for each type of model is its own forward pass,
//! loss and [`Module`](burn::module::Module) implementation, once for all visitors and mappers
//! together.
//!
//! A [`Method`](crate::Method) that is written for all types adds its algorithm to
//! [`Chain::erased`](crate::Chain::erased), and sees these two. One that is written for a certain model
//! [pushes](crate::Chain::push) it onto the chain of that model and sees its type.

mod algorithm;
mod batch;
mod model;
mod visit;

pub(crate) use algorithm::{pushed, taken};
pub use batch::AnyBatch;
pub use model::AnyModel;

use std::any::Any;

/// The value as a `B`, if the type `A` is `B`.
pub(crate) fn same<A: 'static, B: 'static>(value: A) -> Result<B, A> {
    let mut slot = Some(value);
    let found = (&mut slot as &mut dyn Any).downcast_mut::<Option<B>>();
    match (found.and_then(Option::take), slot) {
        (Some(value), _) => Ok(value),
        (None, Some(value)) => Err(value),
        (None, None) => unreachable!("a value that is not taken is left"),
    }
}

#[cfg(test)]
mod tests;
