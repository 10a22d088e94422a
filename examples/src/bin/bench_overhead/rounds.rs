//! Steps of several variants, in turns.

use std::time::Instant;

use anyhow::Context;
use burn::tensor::Device;
use burn_compress::reads;
use burn_compress_examples::process::cpu_seconds;

/// One step of a variant.
pub type Step = Box<dyn FnMut() -> anyhow::Result<()>>;

/// Steps of each variant before the first that counts: masks are made and ranges are found by then.
pub const WARM_UP: usize = 8;

/// What was measured of a variant, a value for each round.
#[derive(Clone, Debug, Default)]
pub struct Samples {
    /// Milliseconds.
    pub wall: Vec<f64>,
    /// Milliseconds that all threads of the process have computed.
    pub cpu: Vec<f64>,
    /// Reads of the device that the library made.
    pub reads: Vec<f64>,
}

/// Lets each variant make a step in each of at most `rounds` rounds; after `seconds` no further one
/// begins, once there are three.
///
/// # Errors
///
/// Those of the steps and of the device.
pub fn in_turns(
    steps: &mut [Step],
    device: &Device,
    rounds: usize,
    seconds: f64,
) -> anyhow::Result<Vec<Samples>> {
    for step in steps.iter_mut() {
        for _ in 0..WARM_UP {
            step()?;
        }
    }
    wait(device)?;
    let mut samples = vec![Samples::default(); steps.len()];
    let start = Instant::now();
    for round in 0..rounds {
        if round >= 3 && start.elapsed().as_secs_f64() > seconds {
            break;
        }
        for (step, samples) in steps.iter_mut().zip(&mut samples) {
            let (read, cpu, wall) = (reads::count(), cpu_seconds(), Instant::now());
            step()?;
            wait(device)?;
            samples.wall.push(1e3 * wall.elapsed().as_secs_f64());
            samples.cpu.push(1e3 * (cpu_seconds() - cpu));
            samples.reads.push((reads::count() - read) as f64);
        }
    }
    Ok(samples)
}

/// Waits until the device has done all that was queued.
pub fn wait(device: &Device) -> anyhow::Result<()> {
    device.sync().context("the device failed")
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use super::*;

    #[test]
    fn variants_alternate_after_they_have_warmed_up() {
        let order = Rc::new(RefCell::new(String::new()));
        let step = |name: char| -> Step {
            let order = order.clone();
            Box::new(move || {
                order.borrow_mut().push(name);
                Ok(())
            })
        };
        let mut steps = [step('a'), step('b')];
        let samples = in_turns(&mut steps, &Device::flex(), 3, 60.0).unwrap();
        let warm = "a".repeat(WARM_UP) + &"b".repeat(WARM_UP);
        assert_eq!(*order.borrow(), warm + "ababab");
        assert_eq!((samples.len(), samples[1].wall.len()), (2, 3));

        // No time at all is time for three rounds.
        let samples = in_turns(&mut steps, &Device::flex(), 9, 0.0).unwrap();
        assert_eq!(samples[0].cpu.len(), 3);
    }
}
