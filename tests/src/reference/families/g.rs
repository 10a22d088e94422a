//! Family G: distillation losses on given hidden states.

use burn::tensor::{Device, Tensor};
use indexmap::IndexMap;

use crate::reference::adapter::core::FlatTensor;
use crate::reference::adapter::core::config::ConfigList;
use crate::reference::adapter::core::layer::LayerInfo;
use crate::reference::adapter::distillation::{DistillationSettings, combine};
use crate::reference::case::{Array, Case, Result};
use crate::reference::check::Checks;

/// Runs a case.
///
/// # Errors
///
/// When the case cannot be run, or names a distiller that the library does not have.
pub fn run(case: &Case) -> Result<Checks> {
    if case.file.algorithm != "DynamicLayerwiseDistiller" {
        return case.not_covered(format!("{} is not part of the library yet", case.file.algorithm));
    }
    let device = Device::flex().autodiff();
    let mut checks = Checks::new(case);
    let failed = |error: &dyn std::fmt::Display| case.error(error);

    // The hidden states are all that there is of the models: one layer for each.
    let mut students = IndexMap::new();
    let mut layers = Vec::new();
    for (name, array) in case.below("student/") {
        students.insert(name.to_owned(), leaf(array, &device)?);
        layers.push(LayerInfo {
            path: name.to_owned(),
            kind: "Hidden".to_owned(),
            wrapped: true,
            params: Vec::new(),
        });
    }
    let mut teachers = IndexMap::new();
    for (name, array) in case.below("teacher/") {
        teachers.insert(name.to_owned(), leaf(array, &device)?);
    }

    let text = case.file.config_list.to_string();
    let config: ConfigList<DistillationSettings> =
        ConfigList::from_json(&text).map_err(|error| failed(&error))?;
    let selected = config.select(&layers).map_err(|error| failed(&error))?;
    let mut losses = Vec::new();
    for target in &selected {
        let path = target.layer.path.as_str();
        let student = &students[path];
        let mut candidates = Vec::new();
        for link in target.settings.links(path) {
            let teacher = teachers
                .get(link)
                .ok_or_else(|| case.error(format!("there is no teacher state `{link}`")))?;
            let loss = target
                .settings
                .loss()
                .between((path, student), (link, teacher))
                .map_err(|error| failed(&error))?;
            candidates.push((link, loss));
        }
        compare_links(case, &mut checks, path, target.settings.lambda(), &candidates)?;
        let candidates = candidates.into_iter().map(|(_, loss)| loss).collect();
        let loss = combine::minimum(candidates).ok_or_else(|| case.error("no link at all"))?;
        losses.push((target.settings.lambda(), loss));
    }

    let origin: f64 = case.expected("origin_loss")?;
    let origin_lambda: f64 = case.argument("origin_loss_lambda")?;
    let origin_loss = Tensor::<1>::from_floats([origin as f32], &device);
    let total = combine::total(origin_loss, origin_lambda, losses);
    let gradients = total.backward();
    let value = Array::from_tensor(total);
    let distilled = f64::from(value.scalar()?) - origin_lambda * origin;
    checks.number("total_loss", f64::from(value.scalar()?), case.expected("total_loss")?);
    checks.number("distill_loss", distilled, case.expected("distill_loss")?);
    checks.array(case, "total_loss", &value);
    for (name, student) in &students {
        match student.values.grad(&gradients) {
            Some(gradient) => {
                let values = Array::from_tensor(gradient).values;
                let gradient = Array::float(student.shape.clone(), values);
                checks.array(case, &format!("grad_student/{name}"), &gradient);
            }
            None => checks.fail(format!("grad_student/{name}: there is no gradient")),
        }
    }
    for (name, teacher) in &teachers {
        if teacher.values.grad(&gradients).is_some() {
            checks.fail(format!("teacher/{name}: the teacher receives a gradient"));
        }
    }
    Ok(checks)
}

fn leaf(array: &Array, device: &Device) -> Result<FlatTensor> {
    let flat = Array::float([array.values.len()], array.values.clone());
    let values = flat.tensor::<1>(device)?.require_grad();
    Ok(FlatTensor { values, shape: array.shape.clone() })
}

/// The weighted loss of every link of a student layer, and which of them is the smallest.
fn compare_links(
    case: &Case,
    checks: &mut Checks,
    student: &str,
    lambda: f64,
    candidates: &[(&str, Tensor<1>)],
) -> Result<()> {
    let expected: IndexMap<String, IndexMap<String, f64>> = case.expected("weighted_loss_per_link")?;
    let chosen: IndexMap<String, String> = case.expected("chosen_link")?;
    let mut smallest: Option<(&str, f64)> = None;
    for (link, loss) in candidates {
        let loss = f64::from(Array::from_tensor(loss.clone()).scalar()?) * lambda;
        let name = format!("weighted loss of {student} and {link}");
        match expected.get(student).and_then(|links| links.get(*link)) {
            Some(expected) => checks.number(&name, loss, *expected),
            None => checks.fail(format!("{name}: the case does not expect this link")),
        }
        if smallest.is_none_or(|(_, least)| loss < least) {
            smallest = Some((link, loss));
        }
    }
    let got = smallest.map(|(link, _)| link.to_owned());
    checks.equal(&format!("chosen link of {student}"), got, chosen.get(student).cloned());
    Ok(())
}
