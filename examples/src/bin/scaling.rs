//! How the time of what is done once grows with the model: building a pruner, generating masks,
//! cutting channels and loading a small model.
//!
//! ```text
//! time = a * size^exponent      the exponent by least squares of the logarithms
//! ```
//!
//! A residual network of 1x1 convolutions and batch norms is made deeper, then wider. Half of its
//! convolutions have channels of their own, all others share theirs through the additions. Every time
//! is the median of the repeats.
//!
//! Ends with an error when an exponent is above the limit. FPGM compares all channels of a layer with
//! each other, so that its masks have none.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, ensure};
use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, Linear, LinearConfig};
use burn::optim::SgdConfig;
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor};
use burn_compress::prelude::*;
use burn_compress_examples::cli::DeviceName;
use clap::Parser;
use comfy_table::{CellAlignment, Table, presets::ASCII_MARKDOWN};

/// Options of the measurement.
#[derive(Parser, Debug)]
struct Args {
    /// Numbers of convolutions, at `--narrow` channels
    #[arg(long, value_delimiter = ',', default_values_t = [50, 100, 200, 400])]
    layers: Vec<usize>,

    /// Numbers of channels, in `--shallow` convolutions
    #[arg(long, value_delimiter = ',', default_values_t = [64, 128, 256, 512, 1024, 2048])]
    channels: Vec<usize>,

    /// Channels of the networks that grow in layers
    #[arg(long, default_value_t = 32)]
    narrow: usize,

    /// Convolutions of the networks that grow in channels
    #[arg(long, default_value_t = 5)]
    shallow: usize,

    /// Measurements of each time
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    repeats: u64,

    /// The largest exponent that is accepted
    #[arg(long, default_value_t = 1.2)]
    limit: f64,

    /// Where to compute
    #[arg(long, value_enum, default_value_t = DeviceName::Flex)]
    device: DeviceName,
}

/// `x + norm2(conv2(relu(norm1(conv1(x)))))`.
#[derive(Module, Debug)]
struct Block {
    conv1: Conv2d,
    norm1: BatchNorm,
    conv2: Conv2d,
    norm2: BatchNorm,
}

/// A convolution, blocks and a linear layer.
#[derive(Module, Debug)]
struct Net {
    stem: Conv2d,
    blocks: Vec<Block>,
    head: Linear,
}

impl Net {
    /// A network of about `layers` convolutions.
    fn new(layers: usize, channels: usize, device: &Device) -> Self {
        let conv = |inputs: usize| Conv2dConfig::new([inputs, channels], [1, 1]).init(device);
        let norm = || BatchNormConfig::new(channels).init(device);
        let block = |_| Block {
            conv1: conv(channels),
            norm1: norm(),
            conv2: conv(channels),
            norm2: norm(),
        };
        Self {
            stem: conv(3),
            blocks: (0..layers / 2).map(block).collect(),
            head: LinearConfig::new(channels, 10).init(device),
        }
    }

    fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        let mut x = self.stem.forward(images);
        for block in &self.blocks {
            let inner = relu(block.norm1.forward(block.conv1.forward(x.clone())));
            x = x + block.norm2.forward(block.conv2.forward(inner));
        }
        let [batch, channels, ..] = x.dims();
        let x = x.mean_dim(2).mean_dim(3).reshape([batch, channels]);
        self.head.forward(x)
    }
}

/// What is measured, and whether it has to stay below the limit.
const TIMES: [(&str, bool); 7] = [
    ("L1 built", true),
    ("Taylor built", true),
    ("Slim built", true),
    ("L1 masks", true),
    ("FPGM masks", false),
    ("speedup", true),
    ("load", true),
];

/// The size of a network and the times in seconds.
struct Row {
    layers: usize,
    channels: usize,
    weights: usize,
    times: [f64; TIMES.len()],
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let device = args.device.open()?;
    let file = std::env::temp_dir().join(format!("burn-compress-{}.small", std::process::id()));
    // Once without a clock, for what the first run alone does.
    measure(3, 8, 1, &device, &file)?;
    let rows = |sizes: Vec<(usize, usize)>| -> anyhow::Result<Vec<Row>> {
        let rows = sizes.into_iter().map(|(layers, channels)| {
            let row = measure(layers, channels, args.repeats, &device, &file)?;
            eprintln!("==> {layers} layers of {channels} channels");
            Ok(row)
        });
        rows.collect()
    };
    let deep = rows(args.layers.iter().map(|&l| (l, args.narrow)).collect());
    let wide = rows(args.channels.iter().map(|&c| (args.shallow, c)).collect());
    // The file is there unless saving failed.
    std::fs::remove_file(&file).ok();
    let (deep, wide) = (deep?, wide?);
    println!("{}", table(deep.iter().chain(&wide)));
    let in_layers = exponents(&deep, |row| row.layers)?;
    let in_weights = exponents(&wide, |row| row.weights)?;
    println!("{}", fits(&in_layers, &in_weights));
    for (growth, found) in [("layers", in_layers), ("weights", in_weights)] {
        for ((time, limited), exponent) in TIMES.into_iter().zip(found) {
            ensure!(
                !limited || exponent <= args.limit,
                "the time of `{time}` grows with the power {exponent:.2} of the {growth}, more than {}",
                args.limit
            );
        }
    }
    Ok(())
}

/// Builds, prunes, cuts, saves and loads a network of this size.
fn measure(
    layers: usize,
    channels: usize,
    repeats: u64,
    device: &Device,
    file: &PathBuf,
) -> anyhow::Result<Row> {
    let net = Net::new(layers, channels, device);
    let config = ConfigList::from_json(r#"[{"op_types": ["Conv2d"], "sparse_ratio": 0.5}]"#)?;
    let with_norms = r#"[{"op_types": ["Conv2d", "BatchNorm"], "sparse_ratio": 0.5}]"#;
    let with_norms = ConfigList::from_json(with_norms)?;
    let input = Tensor::<4>::ones([1, 3, 2, 2], device);
    let dummy = DummyInput::new(input.clone(), |net: &Net, x| net.forward(x));
    let evaluator = || {
        let input = input.clone();
        Evaluator::new()
            .with_dummy_input(dummy.clone())
            .with_data(move |_| vec![input.clone()])
            .with_optimizer(SgdConfig::new().init())
            .with_learning_rate(1e-3)
            .with_loss(|net: &Net, x: &Tensor<4>| net.forward(x.clone()).square().mean())
    };
    let options = PrunerConfig::new();
    let mut all: [Vec<f64>; TIMES.len()] = Default::default();
    for _ in 0..repeats {
        let (l1, built_l1) =
            timed(|| L1NormPruner::new(net.clone(), &config, evaluator(), options))?;
        let (_, built_taylor) =
            timed(|| TaylorPruner::new(net.clone(), &config, evaluator(), TaylorConfig::new(1)))?;
        let (_, built_slim) =
            timed(|| SlimPruner::new(net.clone(), &with_norms, evaluator(), SlimConfig::new(1)))?;
        let (compressed, masks_l1) = timed(|| l1.compress(Budget::none()))?;
        let fpgm = FpgmPruner::new(net.clone(), &config, evaluator(), options)?;
        let (_, masks_fpgm) = timed(|| fpgm.compress(Budget::none()))?;
        let (small, cut) = timed(|| compressed.speedup())?;
        save_small(&small.model, &small.state, file)?;
        let (_, loaded) = timed(|| load_small(net.clone(), file))?;
        let times = [
            built_l1,
            built_taylor,
            built_slim,
            masks_l1,
            masks_fpgm,
            cut,
            loaded,
        ];
        all.iter_mut()
            .zip(times)
            .for_each(|(of, time)| of.push(time));
    }
    Ok(Row {
        layers,
        channels,
        weights: net.num_params(),
        times: all.map(median),
    })
}

/// What `work` returns and the seconds that it took.
fn timed<T, E>(work: impl FnOnce() -> Result<T, E>) -> Result<(T, f64), E> {
    let start = Instant::now();
    let result = work()?;
    Ok((result, start.elapsed().as_secs_f64()))
}

/// The middle value, or the mean of the two middle ones.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() % 2 {
        1 => values[middle],
        _ => (values[middle - 1] + values[middle]) / 2.0,
    }
}

/// The exponent of each time over the sizes of the rows.
fn exponents(rows: &[Row], size: fn(&Row) -> usize) -> anyhow::Result<[f64; TIMES.len()]> {
    let mut found = [0.0; TIMES.len()];
    for (at, found) in found.iter_mut().enumerate() {
        let points = rows.iter().map(|row| (size(row) as f64, row.times[at]));
        *found = exponent(points).context("two different sizes are needed for an exponent")?;
    }
    Ok(found)
}

/// The slope of the logarithms by least squares; none of fewer than two sizes.
fn exponent(points: impl Iterator<Item = (f64, f64)>) -> Option<f64> {
    let logarithms: Vec<(f64, f64)> = points.map(|(x, y)| (x.ln(), y.ln())).collect();
    let mean = |of: fn(&(f64, f64)) -> f64| {
        logarithms.iter().map(of).sum::<f64>() / logarithms.len() as f64
    };
    let (x, y) = (mean(|point| point.0), mean(|point| point.1));
    let apart = logarithms.iter().map(|point| (point.0 - x, point.1 - y));
    let (square, product) = apart.fold((0.0, 0.0), |(square, product), (x, y)| {
        (square + x * x, product + x * y)
    });
    (square > 0.0).then(|| product / square)
}

fn table<'a>(rows: impl Iterator<Item = &'a Row>) -> Table {
    let header = ["layers", "channels", "weights"].map(str::to_string);
    let names = TIMES.map(|(name, _)| format!("{name} ms"));
    let mut table = aligned(header.into_iter().chain(names).collect());
    for row in rows {
        let sizes = [row.layers, row.channels, row.weights].map(|size| size.to_string());
        let times = row.times.map(|time| format!("{:.1}", time * 1e3));
        table.add_row(sizes.into_iter().chain(times));
    }
    table
}

fn fits(in_layers: &[f64], in_weights: &[f64]) -> Table {
    let names = TIMES.map(|(name, _)| name.to_string());
    let header = std::iter::once("exponent".to_string()).chain(names);
    let mut table = aligned(header.collect());
    for (growth, found) in [("in layers", in_layers), ("in weights", in_weights)] {
        let found = found.iter().map(|exponent| format!("{exponent:.2}"));
        table.add_row(std::iter::once(growth.to_string()).chain(found));
    }
    table
}

/// A table with this header whose numbers stand below each other.
fn aligned(header: Vec<String>) -> Table {
    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN).set_header(header);
    for column in table.column_iter_mut() {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exponent_is_the_slope_of_the_logarithms() {
        let of = |f: fn(f64) -> f64| exponent([1.0, 2.0, 5.0].into_iter().map(|x| (x, f(x))));
        assert!((of(|x| 3.0 * x).unwrap() - 1.0).abs() < 1e-12);
        assert!((of(|x| 0.1 * x * x).unwrap() - 2.0).abs() < 1e-12);
        assert_eq!(exponent([(4.0, 1.0)].into_iter()), None);
        // Slopes of 1 and 3 over equal distances.
        let bent = [(1.0, 1.0), (2.0, 2.0), (4.0, 16.0)];
        assert!((exponent(bent.into_iter()).unwrap() - 2.0).abs() < 1e-12);
    }

    #[test]
    fn a_median_is_the_middle() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
    }

    #[test]
    fn every_part_is_measured() {
        let file = std::env::temp_dir().join(format!("scaling-{}.small", std::process::id()));
        let row = measure(3, 8, 1, &Device::flex(), &file).unwrap();
        std::fs::remove_file(file).unwrap();
        assert!(row.times.iter().all(|&time| time > 0.0));
        // 3 * 8 + 8, twice 64 + 8 and 16, and 80 + 10.
        assert_eq!(row.weights, 32 + 2 * (72 + 16 + 16) + 90);
    }
}
