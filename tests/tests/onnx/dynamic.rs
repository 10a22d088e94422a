//! Dimensions of any size.

use burn::nn::{Embedding, EmbeddingConfig, Linear, LinearConfig};
use burn::prelude::*;
use burn::tensor::Distribution;
use burn_compress_export::OnnxConfig;

use crate::fixtures::{compare_model, device, no_model};

fn random<const D: usize>(shape: [usize; D]) -> Tensor<D> {
    Tensor::random(shape, Distribution::Normal(0.0, 1.0), &device())
}

/// A table that the pass makes from the number of places, cut to the places at hand.
#[test]
fn a_table_of_positions() {
    let forward = |_: &Linear, x: Tensor<3>| {
        let [_, places, width] = x.dims();
        let values = (0..places * width).map(|at| ((at / width) as f32 * 0.3).sin());
        let data = TensorData::new(values.collect::<Vec<_>>(), [1, places, width]);
        x.clone() + Tensor::from_data(data, &x.device())
    };
    let config = OnnxConfig::new().with_dynamic_axis(0, 1, "places");
    let inputs = [
        random([1, 8, 2]),
        random([4, 8, 2]),
        random([2, 5, 2]),
        random([1, 2, 2]),
    ];
    let file = compare_model(&no_model(), forward, &inputs, &config, &[]);
    let report = file.report();
    assert_eq!(report.inputs[0].dims, ["batch", "places", "2"]);
    assert_eq!(report.notes.len(), 1, "{:?}", report.notes);
    assert!(
        report.notes[0].contains("`places` is at most 8"),
        "{}",
        report.notes[0]
    );
}

/// Learned positions are a parameter that is cut, and numbers of places a range.
#[test]
fn learned_positions() {
    let embedding = EmbeddingConfig::new(16, 3).init(&device());
    let forward = |table: &Embedding, x: Tensor<3>| {
        let places = x.dims()[1];
        let numbers = Tensor::<1, Int>::arange(0..places as i64, &x.device());
        let looked_up = table.forward(numbers.unsqueeze());
        let cut = table.weight.val().slice(s![0..places, ..]);
        x + looked_up + cut.unsqueeze()
    };
    let config = OnnxConfig::new().with_dynamic_axis(0, 1, "places");
    let inputs = [random([1, 8, 3]), random([2, 12, 3]), random([3, 3, 3])];
    let file = compare_model(&embedding, forward, &inputs, &config, &[]);
    assert_eq!(file.report().operators["Range"], 1);
    assert!(file.report().notes.is_empty());
}

#[test]
fn sizes_that_are_computed() {
    let forward = |_: &Linear, x: Tensor<3>| {
        let [batch, places, width] = x.dims();
        let heads = x
            .clone()
            .reshape([batch, places, 2, width / 2])
            .swap_dims(1, 2);
        let scores = heads.clone().matmul(heads.clone().transpose());
        let rows = Tensor::<1, Int>::arange(0..places as i64, &x.device());
        let later = rows
            .clone()
            .unsqueeze_dim::<2>(0)
            .greater(rows.unsqueeze_dim(1));
        let scores = scores.mask_fill(later.unsqueeze(), -9.0);
        let merged = scores
            .matmul(heads)
            .swap_dims(1, 2)
            .reshape([batch, places, width]);
        let all = merged.clone().reshape([batch * places, width]);
        let doubled = Tensor::cat(vec![merged.clone(), merged.clone()], 1);
        let last = merged.narrow(1, places - 1, 1);
        let rest = doubled
            .clone()
            .slice(s![.., 1.., ..])
            .reshape([batch * (2 * places - 1), width]);
        (
            all,
            doubled.reshape([2 * places, batch * width]),
            last,
            rest,
        )
    };
    let config = OnnxConfig::new()
        .with_dynamic_axis(0, 1, "places")
        .with_output_names(["a", "b", "c", "d"]);
    let inputs = [
        random([2, 6, 4]),
        random([1, 6, 4]),
        random([3, 4, 4]),
        random([1, 3, 4]),
    ];
    let file = compare_model(
        &no_model(),
        forward,
        &inputs,
        &config,
        &["a", "b", "c", "d"],
    );
    let dims = |at: usize| file.report().outputs[at].dims.join(", ");
    assert_eq!(dims(0), "batch*places, 4");
    assert_eq!(dims(1), "2*places, 4*batch");
    assert_eq!(dims(2), "batch, 1, 4");
}

/// The output of a layer that is merged to rows when that is faster.
#[test]
fn a_linear_layer_for_any_number_of_rows() {
    let linear = LinearConfig::new(5, 3).init(&device());
    let forward = |linear: &Linear, x: Tensor<3>| linear.forward(x);
    let config = OnnxConfig::new().with_dynamic_axis(0, 1, "places");
    let inputs = [
        random([2, 7, 5]),
        random([1, 7, 5]),
        random([5, 1, 5]),
        random([3, 64, 5]),
    ];
    let file = compare_model(&linear, forward, &inputs, &config, &[]);
    let operators: Vec<&str> = file.report().operators.keys().map(String::as_str).collect();
    assert_eq!(operators, ["MatMul", "Add"]);
}

/// Sizes behind strides follow from the tensor that has them.
#[test]
fn images_of_any_size() {
    use burn::nn::conv::{Conv2d, Conv2dConfig};
    let conv = Conv2dConfig::new([2, 4], [3, 3])
        .with_stride([2, 2])
        .init(&device());
    let forward = |conv: &Conv2d, x: Tensor<4>| {
        let x = conv.forward(x);
        let [batch, channels, height, width] = x.dims();
        let places = x
            .clone()
            .reshape([batch, channels, height * width])
            .swap_dims(1, 2);
        let row = Tensor::<4>::ones([1, 1, height, width], &x.device());
        (places, x * row)
    };
    let config = OnnxConfig::new()
        .with_dynamic_axis(0, 2, "height")
        .with_dynamic_axis(0, 3, "width");
    let inputs = [
        random([1, 2, 32, 40]),
        random([2, 2, 9, 12]),
        random([1, 2, 17, 33]),
    ];
    compare_model(&conv, forward, &inputs, &config, &[]);
}

#[test]
fn two_inputs_of_one_batch() {
    let forward = |_: &Linear, (x, y): (Tensor<2>, Tensor<2, Int>)| x.matmul(y.float().transpose());
    let pair = |batch: usize| {
        let numbers = random([batch, 3]).mul_scalar(4.0).int();
        (random([batch, 3]), numbers)
    };
    let inputs = [pair(1), pair(4)];
    let file = compare_model(&no_model(), forward, &inputs, &OnnxConfig::new(), &[]);
    let report = file.report();
    assert_eq!(report.inputs[1].to_string(), "input_1 int64[batch, 3]");
    assert_eq!(report.outputs[0].to_string(), "output float[batch, batch]");
}
