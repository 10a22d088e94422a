//! Random networks over all operations that a cut is followed through: norms over channels, attention,
//! splits and merges of channels, recurrent layers, and the convolutional blocks of
//! [`random_net`](crate::random_net).

mod image;
mod net;
mod spec;
mod token;

pub use image::ImageBlock;
pub use net::OpsNet;
pub use spec::{Cell, GateSpec, Heads, ImageNorm, ImageSpec, OpsSpec, TokenNorm, TokenSpec};
pub use token::{Recurrent, TokenBlock};
