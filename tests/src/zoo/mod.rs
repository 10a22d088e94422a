//! Small versions of architectures that people prune, as their authors write them in Burn: plain
//! layers, heads split by a reshape, channels shuffled by a permutation.

mod bert;
mod convnext;
mod densenet;
mod shufflenet;
mod vit;

pub use bert::Bert;
pub use convnext::ConvNext;
pub use densenet::DenseNet;
pub use shufflenet::ShuffleNet;
pub use vit::Vit;
