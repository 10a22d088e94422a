//! `cargo xtask fuzz`: random networks over all operations, cut and compared.

use anyhow::Result;
use clap::Args;

use super::Cargo;

/// Arguments of `cargo xtask fuzz`.
#[derive(Args, Debug)]
pub struct FuzzArgs {
    /// Number of networks.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    cases: u32,

    /// Seed of the networks; that of the tests when absent.
    #[arg(long)]
    seed: Option<u64>,
}

impl FuzzArgs {
    /// Draws the networks and prints what they were, refusals by reason.
    ///
    /// # Errors
    ///
    /// If a network is cut to another function, or too many are refused.
    pub fn run(self) -> Result<()> {
        self.command().run()
    }

    fn command(&self) -> Cargo {
        let test = "test --package burn-compress-tests --test fuzz -- --nocapture";
        let command = Cargo::new(test).env("FUZZ_CASES", self.cases.to_string());
        match self.seed {
            None => command,
            Some(seed) => command.env("PROPTEST_RNG_SEED", seed.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: FuzzArgs,
    }

    #[test]
    fn cases_and_seed_are_handed_to_the_test() {
        let line = Line::parse_from(["fuzz", "--cases", "50", "--seed", "7"]);
        assert_eq!(
            line.args.command().to_string(),
            "FUZZ_CASES=\"50\" PROPTEST_RNG_SEED=\"7\" \
             cargo test --package burn-compress-tests --test fuzz -- --nocapture"
        );
    }
}
