//! Random convolutional networks: a description that can be printed and drawn at random, and the
//! module that is built from it.
//!
//! All values come from the seed of the description, so that a description that fails a test is all
//! that is needed to repeat it. No value is zero or one by accident: batch norms have statistics,
//! scales and offsets of their own.

mod block;
mod fill;
mod net;
mod spec;
mod unit;

pub use block::{Block, Concat, Gate, Pool, Residual, Separable};
pub(crate) use fill::Fill;
pub use net::Net;
pub use spec::{ActSpec, BlockSpec, HeadSpec, NetSpec, Style};
pub(crate) use unit::activate;
pub use unit::{Act, Cost, Unit};

/// Height and width of the images.
pub const SIZE: usize = 8;

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    #[test]
    fn costs_and_values_follow_from_the_description() {
        let style = Style {
            bias: true,
            norm: true,
            act: ActSpec::Relu,
        };
        let spec = NetSpec {
            seed: 7,
            inputs: 2,
            blocks: vec![
                BlockSpec::Conv {
                    width: 4,
                    kernel: 3,
                    stride: 2,
                    style,
                },
                BlockSpec::Pool {
                    max: true,
                    overlap: false,
                },
            ],
            head: HeadSpec {
                flatten: true,
                hidden: 0,
                act: ActSpec::None,
                bias: false,
                classes: 3,
            },
        };
        let device = Device::flex();
        let net = spec.build(&device);
        // 4 x 4 places after the convolution, 2 x 2 after the pooling.
        let (conv, linear) = (4 * 2 * 9, 4 * 4 * 3);
        let cost = Cost {
            params: conv + 3 * 4 + linear,
            macs: 16 * conv + linear,
        };
        assert_eq!(net.cost(spec.images(1, 2, &device)), cost);
        let run = || {
            spec.build(&device)
                .forward(spec.images(1, 2, &device))
                .into_data()
        };
        run().assert_eq(&run(), true);
        let json = serde_json::to_string(&spec).unwrap();
        assert_eq!(serde_json::from_str::<NetSpec>(&json).unwrap(), spec);
    }
}
