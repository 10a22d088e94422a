//! The programs of the book, one a chapter; the text in `book/` includes them and what they print.
//!
//! ```sh
//! cargo run -p burn-compress-examples --bin book               # all of them
//! cargo run -p burn-compress-examples --bin book -- fusion     # one
//! ```

mod fusion;
mod one_layer;
mod output;
mod own_network;

use burn_compress::prelude::Error;

type Program = fn() -> Result<(), Error>;

const PROGRAMS: [(&str, Program); 3] = [
    ("one_layer", one_layer::run),
    ("own_network", own_network::run),
    ("fusion", fusion::run),
];

fn main() -> Result<(), Error> {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let known = |name: &String| PROGRAMS.iter().any(|(program, _)| program == name);
    if let Some(name) = wanted.iter().find(|name| !known(name)) {
        let programs = PROGRAMS.map(|(program, _)| program).join(", ");
        return Err(Error::other(format!(
            "no program `{name}`; there are {programs}"
        )));
    }
    run(&wanted)
}

/// Runs the programs of these names, all if there is none.
fn run(wanted: &[String]) -> Result<(), Error> {
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
