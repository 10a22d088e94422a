//! Speedup of models whose masks, inputs or layers do not allow it.

use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{Linear, LinearConfig, PaddingConfig2d};
use burn::tensor::{Device, Tensor};
use burn_compress::prelude::*;
use burn_compress::{Calibration, Compressed, History, Mask, MaskMethod, Masks};
use burn_compress_tests::chains::{HALF, id};
use burn_compress_tests::nets::{Net, SIDE, dummy_input};

use crate::fixtures::{Mlp, halved, mask, mlp, mlp_input, prune, rows};
use crate::table::{Attempt, Cases, ensure};

/// A speedup of [`Mlp`] with these masks.
fn cut(masks: &Masks) -> Result<Speedup<Mlp>, Box<dyn std::error::Error>> {
    let nothing = Calibration::new();
    let compressed = Compressed::from_parts(Mlp::new(), masks, &nothing, History::default())?;
    Ok(ModelSpeedup::new(compressed, mlp_input()).speedup_model()?)
}

/// Masks of the hidden features of [`Mlp`].
fn features(keep: [f32; 6]) -> Result<Masks, burn_compress::Error> {
    let mut masks = mask("fc1.weight", keep.to_vec(), &[1, 6])?;
    masks.extend(mask("fc1.bias", keep.to_vec(), &[6])?);
    Ok(masks)
}

pub fn fill(cases: &mut Cases) {
    cases.refused(
        "every hidden feature is masked",
        "NothingLeft",
        ["`fc1", "at least one"],
        || {
            cut(&features([0.0; 6])?)?;
            Ok(())
        },
    );
    cases.right("nothing is masked", || {
        let small = cut(&Masks::new())?;
        ensure(small.model.fc1.weight.dims() == [4, 6], "something was cut")
    });
    cases.right("one feature is left", || {
        let small = cut(&features([0.0, 0.0, 1.0, 0.0, 0.0, 0.0])?)?;
        ensure(
            small.model.fc1.weight.dims() == [4, 1],
            "another number of features",
        )
    });
    cases.right("the outputs of the last layer are masked", || {
        let mut masks = mask("fc2.weight", vec![0.0, 1.0, 0.0], &[1, 3])?;
        masks.extend(mask("fc2.bias", vec![0.0, 1.0, 0.0], &[3])?);
        let small = cut(&masks)?;
        ensure(
            small.model.fc2.weight.dims() == [6, 3],
            "the interface has changed",
        )
    });
    cases.right("the inputs of the first layer are masked", || {
        let small = cut(&mask("fc1.weight", vec![0.0, 1.0, 1.0, 0.0], &[4, 1])?)?;
        ensure(
            small.model.fc1.weight.dims() == [4, 6],
            "the interface has changed",
        )
    });
    cases.right("single weights are masked", || {
        let mut values = vec![1.0; 24];
        values[3] = 0.0;
        let small = cut(&mask("fc1.weight", values, &[4, 6])?)?;
        let zero: Vec<f32> = small.model.fc1.weight.val().into_data().iter().collect();
        ensure(zero[3] == 0.0 && zero.len() == 24, "the weight came back")
    });
    cases.right("a masked weight whose bias stays", || {
        let small = cut(&mask(
            "fc1.weight",
            vec![0.0, 1.0, 1.0, 1.0, 1.0, 1.0],
            &[1, 6],
        )?)?;
        ensure(small.model.fc1.weight.dims() == [4, 6], "its bias was lost")
    });
    cases.right("a mask that adds", || {
        let mut masks = features([0.0, 1.0, 1.0, 1.0, 1.0, 1.0])?;
        let added = masks[&id("fc1.weight")]
            .clone()
            .with_method(MaskMethod::Add);
        masks.insert(id("fc1.weight"), added);
        let small = cut(&masks);
        let expected =
            Compressed::from_parts(Mlp::new(), &masks, &Calibration::new(), History::default())?;
        let expected: Vec<f32> = expected
            .model()
            .forward(rows(0.3))
            .into_data()
            .iter()
            .collect();
        match small {
            // Either the same function or an error that says why not.
            Err(error) => Err(error),
            Ok(small) => {
                let found: Vec<f32> = small.model.forward(rows(0.3)).into_data().iter().collect();
                let near = found
                    .iter()
                    .zip(&expected)
                    .all(|(a, b)| (a - b).abs() <= 1e-3 * b.abs());
                ensure(near, format!("{found:?} instead of {expected:?}"))
            }
        }
    });
    parts(cases);
    inputs(cases);
    depthwise(cases);
}

/// Parts of a compressed model that do not belong to it.
fn parts(cases: &mut Cases) {
    let from_parts = |masks: Masks| -> Attempt {
        let nothing = Calibration::new();
        Compressed::from_parts(Mlp::new(), &masks, &nothing, History::default())?;
        Ok(())
    };
    cases.refused(
        "parts: a mask of no layer",
        "UnknownTarget",
        ["`fc3.weight`", "`fc"],
        move || from_parts(mask("fc3.weight", vec![1.0], &[1])?),
    );
    let parts = ["`fc1.bias`", "[6]", "[5]"];
    cases.refused(
        "parts: a mask of another shape",
        "ShapeMismatch",
        parts,
        move || from_parts(mask("fc1.bias", vec![1.0; 5], &[5])?),
    );
    cases.right("parts: a model alone", move || from_parts(Masks::new()));
    cases.right("cut twice", || {
        let first = ModelSpeedup::new(halved()?, dummy_input());
        let (a, b) = (first.speedup_model()?, first.speedup_model()?);
        let weights = |net: &Net| net.stem.weight.val().into_data();
        ensure(weights(&a.model) == weights(&b.model), "the second differs")
    });
    cases.right("cut, pruned and cut again", || {
        let small = ModelSpeedup::new(halved()?, dummy_input()).speedup_model()?;
        let evaluator = burn_compress_tests::nets::evaluator(2);
        let config = ConfigList::from_json(HALF)?;
        let pruner = L1NormPruner::new(small.model, &config, evaluator, PrunerConfig::new())?;
        let again = ModelSpeedup::new(pruner.compress(Budget::none())?, dummy_input());
        let dims = again.speedup_model()?.model.stem.weight.dims();
        ensure(dims == [1, 1, 3, 3], format!("{dims:?}"))
    });
}

/// Dummy inputs that the simulated model takes and that are unusual.
fn inputs(cases: &mut Cases) {
    for batch in [1, 7] {
        cases.right(format!("a dummy input of {batch} images"), move || {
            let images = Tensor::<4>::ones([batch, 1, SIDE, SIDE], &Device::flex());
            let dummy = DummyInput::new(images, |net: &Net, images| net.forward(images));
            let small = ModelSpeedup::new(halved()?, dummy).speedup_model()?;
            ensure(
                small.model.stem.weight.dims() == [2, 1, 3, 3],
                "another size",
            )
        });
    }
    cases.right("a dummy input of zeros", || {
        let images = Tensor::<4>::zeros([2, 1, SIDE, SIDE], &Device::flex());
        let dummy = DummyInput::new(images, |net: &Net, images| net.forward(images));
        ModelSpeedup::new(halved()?, dummy).speedup_model()?;
        Ok(())
    });
    cases.right("a dummy input on a device with gradients", || {
        let images = Tensor::<4>::ones([2, 1, SIDE, SIDE], &Device::flex().autodiff());
        let dummy = DummyInput::new(images, |net: &Net, images| net.forward(images));
        ModelSpeedup::new(halved()?, dummy).speedup_model()?;
        Ok(())
    });
    for value in [f32::NAN, f32::INFINITY] {
        cases.refused(
            format!("a dummy input of {value}"),
            "Incomparable",
            ["output 0"],
            move || {
                let images = Tensor::<4>::full([2, 1, SIDE, SIDE], value, &Device::flex());
                let dummy = DummyInput::new(images, |net: &Net, images| net.forward(images));
                ModelSpeedup::new(halved()?, dummy).speedup_model()?;
                Ok(())
            },
        );
    }
    cases.refused(
        "a dummy input of no rows",
        "EmptyInput",
        ["[0, 4]", "at least one sample"],
        || {
            let mut chain = mlp();
            chain.update_masks(&features([0.0, 1.0, 1.0, 1.0, 1.0, 1.0])?)?;
            let none = Tensor::<2>::zeros([0, 4], &Device::flex());
            let dummy = DummyInput::new(none, |net: &Mlp, x| net.forward(x));
            ModelSpeedup::new(chain.compress(Budget::none())?, dummy).speedup_model()?;
            Ok(())
        },
    );
}

/// A plain depthwise convolution: its number of groups cannot be changed.
#[derive(Module, Debug)]
struct Depthwise {
    first: Wrapper<Conv2d>,
    plain: Conv2d,
    head: Linear,
}

impl Depthwise {
    fn new() -> Self {
        let device = Device::flex();
        let conv = |channels: [usize; 2], groups: usize| {
            Conv2dConfig::new(channels, [3, 3])
                .with_groups(groups)
                .with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1))
                .init(&device)
        };
        Self {
            first: conv([1, 4], 1).into(),
            plain: conv([4, 4], 4),
            head: LinearConfig::new(4, 2).init(&device),
        }
    }

    fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        let x = self.plain.forward(self.first.forward(images));
        self.head
            .forward(x.mean_dim(3).mean_dim(2).flatten::<2>(1, 3))
    }
}

fn depthwise(cases: &mut Cases) {
    cases.refused(
        "a plain depthwise convolution",
        "ConstantField",
        ["`plain`", "Wrapper"],
        || {
            let images = Tensor::<4>::ones([2, 1, SIDE, SIDE], &Device::flex());
            let dummy = DummyInput::new(images, |net: &Depthwise, images| net.forward(images));
            let keep = || Mask::new(vec![0.0, 1.0, 1.0, 1.0], [4]);
            let wide = |keep: Mask| Mask::new(keep.values().to_vec(), [4, 1, 1, 1]);
            let masks = Masks::from([
                (id("first.weight"), wide(keep()?)?),
                (id("first.bias"), keep()?),
                (id("plain.weight"), wide(keep()?)?),
                (id("plain.bias"), keep()?),
            ]);
            let (nothing, history) = (Calibration::new(), History::default());
            let compressed = Compressed::from_parts(Depthwise::new(), &masks, &nothing, history)?;
            ModelSpeedup::new(compressed, dummy).speedup_model()?;
            Ok(())
        },
    );
    cases.right("half of a model whose masks were set by hand", || {
        let compressed = prune(HALF)?.compress(Budget::none())?;
        let (masks, model) = (compressed.masks(), compressed.unwrap_model());
        let (nothing, history) = (Calibration::new(), History::default());
        let compressed = Compressed::from_parts(model, &masks, &nothing, history)?;
        let small = ModelSpeedup::new(compressed, dummy_input()).speedup_model()?;
        ensure(
            small.model.stem.weight.dims() == [2, 1, 3, 3],
            "another size",
        )
    });
}
