//! Operations on images: other sizes, padding, sampling.

use burn_ir::{
    GridSample2dOpIr, GridSamplePaddingModeIr as Border, InterpolateModeIr as Mode,
    InterpolateOpIr, PadModeIr, PadOpIr,
};

use crate::graph::Attribute;

use super::{Lower, Lowering, Unsupported};

fn text(text: &str) -> Attribute {
    Attribute::Text(text.to_string())
}

/// `[batch, channels, height, width]` in another height and width.
pub(super) fn interpolate(l: &mut Lower, op: &InterpolateOpIr) -> Lowering {
    let corners = match op.options.align_corners {
        true => "align_corners",
        false => "half_pixel",
    };
    let (mode, coordinates) = match op.options.mode {
        Mode::Nearest => ("nearest", "asymmetric"),
        Mode::NearestExact => ("nearest", "half_pixel"),
        Mode::Bilinear => ("linear", corners),
        Mode::Bicubic => ("cubic", corners),
        Mode::Lanczos3 => {
            return Err(Unsupported::new(
                "ONNX has no Lanczos interpolation: use a bicubic one",
            ));
        }
    };
    let x = l.input(&op.x)?;
    // A size of 1 is aligned with the first corner in Burn.
    let sizes = l.sizes(&op.out);
    let size = l.shape(&sizes)?;
    let node = l.push("Resize", [x, String::new(), String::new(), size], &op.out);
    node.set("mode", text(mode))
        .set("coordinate_transformation_mode", text(coordinates));
    match op.options.mode {
        Mode::Nearest => node.set("nearest_mode", text("floor")),
        Mode::NearestExact => node.set("nearest_mode", text("round_prefer_ceil")),
        _ => node.set("cubic_coeff_a", Attribute::Float(-0.75)),
    };
    Ok(())
}

pub(super) fn pad(l: &mut Lower, op: &PadOpIr) -> Lowering {
    let x = l.input(&op.input)?;
    let before = op.padding.iter().map(|pad| pad.0 as i64);
    let after = op.padding.iter().map(|pad| pad.1 as i64);
    let pads = l.ints(before.chain(after));
    let (mode, mut inputs) = match op.mode {
        PadModeIr::Constant(value) => {
            let value = l.scalar(value, op.input.dtype)?;
            ("constant", vec![x, pads, value])
        }
        PadModeIr::Reflect => ("reflect", vec![x, pads]),
        PadModeIr::Edge => ("edge", vec![x, pads]),
    };
    inputs.retain(|input| !input.is_empty());
    l.push("Pad", inputs, &op.out).set("mode", text(mode));
    Ok(())
}

/// Elements at positions between -1 and 1.
pub(super) fn grid_sample(l: &mut Lower, op: &GridSample2dOpIr) -> Lowering {
    let mode = match op.options.mode {
        Mode::Nearest => "nearest",
        Mode::Bilinear => "bilinear",
        Mode::Bicubic => "bicubic",
        Mode::NearestExact | Mode::Lanczos3 => return Err(Unsupported::no_operator()),
    };
    let border = match op.options.padding_mode {
        Border::Zeros => "zeros",
        Border::Border => "border",
        Border::Reflection => "reflection",
    };
    let inputs = [l.input(&op.tensor)?, l.input(&op.grid)?];
    l.push("GridSample", inputs, &op.out)
        .set("mode", text(mode))
        .set("padding_mode", text(border))
        .set(
            "align_corners",
            Attribute::Int(i64::from(op.options.align_corners)),
        );
    Ok(())
}
