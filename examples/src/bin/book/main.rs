//! The programs of the book, one a chapter; the text in `book/` includes them and what they print.
//!
//! ```sh
//! cargo run -p burn-compress-examples --bin book               # all of them
//! cargo run -p burn-compress-examples --bin book -- fusion     # one
//! ```

mod backends;
mod deployment;
mod distillers;
mod fusion;
mod limits;
mod one_layer;
mod output;
mod own_network;
mod pruners;
mod quantizers;
mod real_networks;
mod see_it;

use std::process::ExitCode;

use burn::tensor::Device;
use burn_compress::prelude::*;

type Program = fn() -> Result<(), Error>;

const PROGRAMS: [(&str, Program); 11] = [
    ("one_layer", one_layer::run),
    ("own_network", own_network),
    ("fusion", fusion::run),
    ("pruners", pruners::run),
    ("quantizers", quantizers::run),
    ("distillers", distillers::run),
    ("real_networks", real_networks::run),
    ("see_it", see_it::run),
    ("deployment", deployment::run),
    ("backends", backends::run),
    ("limits", limits::run),
];

fn main() -> ExitCode {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    match run(&wanted) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The program of a network of one's own, which needs nothing of this one, and a comparison of its
/// tables with the text.
fn own_network() -> Result<(), Error> {
    own_network::run()?;
    let device = Device::flex();
    let chain = own_network::chain(own_network::trained(&device), &device)?;
    output::show("own_network_chain", &chain);
    output::show("own_network_plan", chain.plan()?);
    Ok(())
}

/// Runs the programs of these names, all if there is none.
///
/// # Errors
///
/// A name of no program, and the error of a program.
fn run(wanted: &[String]) -> Result<(), Error> {
    let known = |name: &String| PROGRAMS.iter().any(|(program, _)| program == name);
    if let Some(name) = wanted.iter().find(|name| !known(name)) {
        let programs = PROGRAMS.map(|(program, _)| program).join(", ");
        return Err(Error::other(format!(
            "no program `{name}`; there are {programs}"
        )));
    }
    for (name, program) in PROGRAMS {
        if wanted.is_empty() || wanted.iter().any(|wanted| wanted == name) {
            program()?;
            println!("{name}: done\n");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    // One test, as random numbers of a device come from one generator.
    #[test]
    fn every_program_runs() {
        super::run(&[]).unwrap();
    }
}
