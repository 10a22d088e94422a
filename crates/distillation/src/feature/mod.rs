//! Distillers of hidden states: their contract, the distiller of any loss and the built-in ones.

pub(crate) mod adaptive;
pub mod attention;
pub(crate) mod channels;
mod distiller;
pub(crate) mod dynamic;
pub(crate) mod fitnets;
mod hidden;
mod learnables;
mod loss;
pub mod relational;

pub use distiller::{FeatureDistiller, Features, check_feature_loss};
pub use hidden::HiddenState;
pub use learnables::Learnables;
pub use loss::{FeatureLoss, FeaturePair};
