//! Quantization after training: corrected biases, and batch norms folded into weights.

use burn::tensor::{Device, Tensor};
use burn_compress::config::ConfigList;
use burn_compress::quantization::{PtqConfig, PtqQuantizer, fold};
use burn_compress::{Budget, Norm, Wrapper};

use super::case::{Case, Numbers};
use super::check::{Checks, Got};
use super::nets::{Chain, evaluator, linear};
use crate::reference::case::Result;

/// Linear layers `weight_1`, `bias_1`, `weight_2`, .. with rectifiers between them, quantized with
/// corrected biases.
pub fn bias_correction(case: &Case, checks: &mut Checks<'_>) -> Result<()> {
    let device = Device::flex();
    let mut layers = Vec::new();
    while let Some(weight) = case.optional::<Numbers>(&format!("weight_{}", layers.len() + 1))? {
        let bias: Option<Numbers> = case.optional(&format!("bias_{}", layers.len() + 1))?;
        layers.push(Wrapper::new(linear(&weight, bias.as_ref(), &device)?));
    }
    let batches: Vec<Numbers> = case.input("batches")?;
    let batches: Vec<Tensor<2>> = batches
        .iter()
        .map(|batch| batch.tensor(&device))
        .collect::<Result<_>>()?;
    let dtype = case.optional("dtype")?.unwrap_or_else(|| "int3".to_owned());
    let rules = format!(
        r#"[{{"op_types": ["Linear"], "target_names": ["weight"], "quant_dtype": "{dtype}",
              "quant_scheme": "symmetric", "observer": "min_max"}}]"#
    );
    let config = ConfigList::from_json(&rules).map_err(|error| case.error(error))?;
    let options = PtqConfig::new()
        .with_batches(batches.len())
        .with_bias_correction(true);
    let evaluator = evaluator(batches, |net: &Chain, x: &Tensor<2>| {
        net.forward(x.clone()).mean().reshape([1])
    });
    let chain = PtqQuantizer::new(Chain { layers }, &config, evaluator, options);
    let chain = chain.map_err(|error| case.error(error))?;
    let compressed = chain
        .compress(Budget::none())
        .map_err(|error| case.error(error))?;
    for (at, layer) in compressed.model().layers.iter().enumerate() {
        let number = at + 1;
        checks.compare(&format!("/quantized_weight_{number}"), layer.weight.val());
        if let Some(bias) = &layer.bias {
            checks.compare(&format!("/bias_{number}"), bias.val());
        }
    }
    Ok(())
}

/// A batch norm folded into the weight and the bias before it.
pub fn folding(case: &Case, checks: &mut Checks<'_>) -> Result<()> {
    let device = Device::flex();
    let vector = |key: &str| -> Result<Option<Tensor<1>>> {
        let numbers: Option<Numbers> = case.optional(key)?;
        numbers.map(|numbers| numbers.tensor(&device)).transpose()
    };
    let needed = |key: &str| -> Result<Tensor<1>> {
        vector(key)?.ok_or_else(|| case.error(format!("no `{key}` under `inputs`")))
    };
    let norm = Norm {
        gamma: vector("gamma")?,
        beta: vector("beta")?,
        mean: needed("mean")?,
        variance: needed("variance")?,
        epsilon: case.optional("epsilon")?.unwrap_or(1e-5),
    };
    let weight: Numbers = case.input("weight")?;
    let channel: usize = case.input("channel")?;
    let folded: Got = match weight.shape.len() {
        2 => fold::weight(weight.tensor::<2>(&device)?, channel, &norm).into(),
        3 => fold::weight(weight.tensor::<3>(&device)?, channel, &norm).into(),
        4 => fold::weight(weight.tensor::<4>(&device)?, channel, &norm).into(),
        5 => fold::weight(weight.tensor::<5>(&device)?, channel, &norm).into(),
        rank => return Err(case.error(format!("no layer has a weight of rank {rank}"))),
    };
    checks.compare("/weight", folded);
    checks.compare("/bias", fold::bias(vector("bias")?, &norm));
    Ok(())
}
