//! Distillers of logits: their contract, the distiller of any loss and the built-in ones.

mod distiller;
pub mod dkd;
pub mod logits;
mod loss;

pub use distiller::{LogitDistiller, Logits, check_logit_loss};
pub use loss::{LogitLoss, LogitPair};
