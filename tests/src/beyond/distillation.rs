//! Losses of distillers on given hidden states and logits, with their gradients.

use burn::tensor::{Bool, Device, Tensor, TensorData};
use burn_compress::FlatTensor;
use burn_compress::distillation::{
    aggregation, attention, dkd, internals, logits, losses, relational,
};

use super::case::{Case, Numbers};
use super::check::Checks;
use crate::reference::case::Result;

/// The student's tensor as a leaf, and the teacher's.
fn pair<const D: usize>(case: &Case) -> Result<(Tensor<D>, Tensor<D>)> {
    let (student, teacher): (Numbers, Numbers) = (case.input("student")?, case.input("teacher")?);
    Ok((leaf(&student)?, teacher.tensor(&Device::flex())?))
}

fn leaf<const D: usize>(values: &Numbers) -> Result<Tensor<D>> {
    let device = Device::flex().autodiff();
    Ok(values.tensor::<D>(&device)?.require_grad())
}

/// Compares a loss and its gradient at `student`.
fn value_and_gradient<const D: usize>(
    checks: &mut Checks<'_>,
    (loss_key, gradient_key): (&str, &str),
    loss: Tensor<1>,
    student: &Tensor<D>,
) {
    checks.compare(loss_key, loss.clone());
    let gradient = student.grad(&loss.backward());
    checks.compare(
        gradient_key,
        gradient.unwrap_or_else(|| Tensor::zeros(student.dims(), &Device::flex())),
    );
}

/// Attention transfer: where hidden states are active.
pub fn attention(case: &Case, checks: &mut Checks<'_>) -> Result<()> {
    let (student, teacher) = pair::<3>(case)?;
    let positions = student.dims()[1];
    let loss = attention::attention(student.clone(), teacher);
    // Peers average over the positions as well.
    checks.compare("/peer_loss", loss.clone() / positions as f64);
    // The paper's distance is not squared.
    checks.documented("/paper_loss");
    value_and_gradient(checks, ("/loss", "/student_gradient"), loss, &student);
    Ok(())
}

/// Decoupled knowledge distillation.
pub fn dkd(case: &Case, checks: &mut Checks<'_>) -> Result<()> {
    let (student, teacher) = pair::<2>(case)?;
    let labels: Vec<usize> = case.input("labels")?;
    let temperature: f64 = case.input("temperature")?;
    let [rows, classes] = student.dims();
    if labels.len() != rows || labels.iter().any(|&label| label >= classes) {
        return Err(case.error(format!("labels {labels:?} for {rows} rows of {classes}")));
    }
    let mut targets = vec![false; rows * classes];
    for (row, label) in labels.into_iter().enumerate() {
        targets[row * classes + label] = true;
    }
    let targets = TensorData::new(targets, [rows, classes]);
    let targets = Tensor::<2, Bool>::from_data(targets, &Device::flex());
    let parts = || {
        let (student, teacher) = (student.clone(), teacher.clone());
        dkd::decoupled(student, teacher, targets.clone(), temperature)
    };
    // A backward pass uses up what was computed for it.
    let [target, _] = parts();
    value_and_gradient(checks, ("/target", "/target_gradient"), target, &student);
    let [_, others] = parts();
    value_and_gradient(checks, ("/others", "/others_gradient"), others, &student);
    for key in case.keys("") {
        if let Some([alpha, beta]) = numbers_in(&key, ["alpha", "beta"]) {
            let [target, others] = parts();
            let gradient = format!("/{key}_gradient");
            let loss = target * alpha + others * beta;
            value_and_gradient(checks, (&format!("/{key}"), &gradient), loss, &student);
        }
    }
    Ok(())
}

/// The numbers of a key such as `alpha_1_beta_8`; none for another key.
fn numbers_in<const N: usize>(key: &str, names: [&str; N]) -> Option<[f64; N]> {
    let mut parts = key.split('_');
    let mut numbers = [0.0; N];
    for (number, name) in numbers.iter_mut().zip(names) {
        if !name.is_empty() && parts.next() != Some(name) {
            return None;
        }
        *number = parts.next()?.parse().ok()?;
    }
    parts.next().is_none().then_some(numbers)
}

/// FitNets: hints through a regressor.
pub fn fitnets(case: &Case, checks: &mut Checks<'_>) -> Result<()> {
    let numbers = |key: &str| case.input::<Numbers>(key);
    let (student, teacher) = (numbers("student")?, numbers("teacher")?);
    let (weight, bias) = (numbers("regressor_weight")?, numbers("regressor_bias")?);
    let flat =
        |values: &Numbers, device: &Device| values.reshaped::<1>([values.values.len()], device);
    let leaf = flat(&student, &Device::flex().autodiff())?.require_grad();
    let state = |values: Tensor<1>, shape: &[usize]| FlatTensor {
        values,
        shape: shape.to_vec(),
    };
    let taught = state(flat(&teacher, &Device::flex())?, &teacher.shape);
    let student_state = state(leaf.clone(), &student.shape);
    let hint = internals::hint_loss(student_state, taught, weight.single(), bias.single());
    let (loss, [weight, bias]) = hint.map_err(|error| case.error(error))?;
    checks.compare("/loss", loss.clone());
    let gradients = loss.backward();
    for (key, leaf) in [
        ("/student_gradient", leaf),
        ("/weight_gradient", weight),
        ("/bias_gradient", bias),
    ] {
        match leaf.grad(&gradients) {
            Some(gradient) => {
                let values: Vec<f64> = gradient.into_data().convert::<f64>().iter().collect();
                checks.compare(key, values);
            }
            None => checks.fail(format!("{key}: there is none")),
        }
    }
    Ok(())
}

/// Soft targets.
pub fn kd(case: &Case, checks: &mut Checks<'_>) -> Result<()> {
    let (student, teacher) = pair::<2>(case)?;
    let temperature: f64 = case.input("temperature")?;
    let keys = ("/loss", "/student_gradient");
    let loss = logits::soft_targets(student.clone(), teacher.clone(), temperature);
    value_and_gradient(checks, keys, loss, &student);
    if temperature == losses::TEMPERATURE {
        let rows = student.dims()[0];
        let loss = losses::kl(student.clone(), teacher, rows);
        value_and_gradient(checks, keys, loss, &student);
    }
    Ok(())
}

/// Relational knowledge distillation: distances and angles.
pub fn relational(case: &Case, checks: &mut Checks<'_>) -> Result<()> {
    let (student, teacher) = pair::<2>(case)?;
    let n = student.dims()[0] as f64;
    let distance = || relational::distance_loss(student.clone(), teacher.clone());
    let angle = || relational::angle_loss(student.clone(), teacher.clone());
    // Peers average over n^2 pairs and n^3 triples, of which n and n (3n - 2) are of one sample.
    checks.compare("/peer_distance", distance() * ((n - 1.0) / n));
    checks.compare("/peer_angle", angle() * ((n - 1.0) * (n - 2.0) / (n * n)));
    for key in case.keys("") {
        if let Some([distances, angles]) = numbers_in(&key, ["total", ""]) {
            let total = distance() * distances + angle() * angles;
            checks.compare(&format!("/{key}"), total);
        }
    }
    value_and_gradient(
        checks,
        ("/distance", "/distance_gradient"),
        distance(),
        &student,
    );
    value_and_gradient(checks, ("/angle", "/angle_gradient"), angle(), &student);
    Ok(())
}

/// Several teachers.
pub fn teachers(case: &Case, checks: &mut Checks<'_>) -> Result<()> {
    let student: Tensor<2> = leaf(&case.input("student")?)?;
    let teachers: Vec<Numbers> = case.input("teachers")?;
    let weights: Vec<f64> = match case.optional("weights")? {
        Some(weights) => weights,
        None => vec![1.0; teachers.len()],
    };
    let temperature: f64 = case.input("temperature")?;
    let teachers: Vec<Tensor<2>> = teachers
        .iter()
        .map(|teacher| teacher.tensor(&Device::flex()))
        .collect::<Result<_>>()?;
    let soft = |teacher: Tensor<2>| logits::soft_targets(student.clone(), teacher, temperature);

    let losses = teachers.iter().map(|teacher| soft(teacher.clone()));
    let loss = aggregation::mean_loss(losses.collect(), &weights);
    let loss = loss.ok_or_else(|| case.error("there is no teacher"))?;
    value_and_gradient(checks, ("/losses", "/losses_gradient"), loss, &student);

    let outputs = teachers.into_iter().map(FlatTensor::new).collect();
    let mean = aggregation::mean_output(outputs, &weights).map_err(|error| case.error(error))?;
    let mean = mean.ok_or_else(|| case.error("there is no teacher"))?;
    let loss = soft(mean.values.reshape(student.dims()));
    value_and_gradient(checks, ("/outputs", "/outputs_gradient"), loss, &student);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_carry_numbers() {
        assert_eq!(
            numbers_in("alpha_1_beta_8", ["alpha", "beta"]),
            Some([1.0, 8.0])
        );
        assert_eq!(
            numbers_in("alpha_0.5_beta_2", ["alpha", "beta"]),
            Some([0.5, 2.0])
        );
        assert_eq!(
            numbers_in("alpha_1_beta_8_gradient", ["alpha", "beta"]),
            None
        );
        assert_eq!(numbers_in("total_25_50", ["total", ""]), Some([25.0, 50.0]));
        assert_eq!(numbers_in("target", ["alpha", "beta"]), None);
    }
}
