//! Command lines and tables of the benchmarks.

use clap::Parser;

use super::*;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    args: BenchArgs,
}

fn parse(line: &[&str]) -> BenchArgs {
    Line::parse_from(line).args
}

/// A report of one run; fields that are not compared are there too.
fn report_of(small: f64, b1: f64, error: f64) -> Vec<Run> {
    let json = format!(
        r#"{{"runs":[{{"seed":0,
            "accuracy":{{"dense":98.0,"simulated":{small},"small":{small},"reloaded":{small}}},
            "params":{{"dense":100,"small":40}},
            "latency_ratio":{{"b1":{b1},"b64":4.0}},
            "max_relative_error":{error}}}]}}"#
    );
    report(&json).unwrap().runs
}

#[test]
fn a_file_for_the_rows_is_left_as_it_is() {
    let file = std::env::temp_dir().join(format!("xtask-rows-{}", std::process::id()));
    check_writable(&file).unwrap();
    assert!(!file.exists());
    fs::write(&file, "rows").unwrap();
    check_writable(&file).unwrap();
    assert_eq!(fs::read(&file).unwrap(), b"rows");
    assert!(check_writable(&file.join("below")).is_err());
    fs::remove_file(&file).unwrap();
}

#[test]
fn devices_are_separated_by_commas() {
    let args = parse(&["bench", "--devices", "flex,wgpu", "--steps", "20"]);
    assert_eq!(args.devices, [Device::Flex, Device::Wgpu]);
    assert_eq!((args.steps, args.repeats), (Some(20), 3));
    assert_eq!(parse(&["bench"]).devices, [Device::Flex]);
    assert!(Line::try_parse_from(["bench", "--devices", "abacus"]).is_err());
    assert!(Line::try_parse_from(["bench", "--repeats", "0"]).is_err());
}

#[test]
fn scaling_takes_the_options_of_its_program_behind_dashes() {
    let args = parse(&[
        "bench",
        "scaling",
        "--profile",
        "dev",
        "--",
        "--repeats",
        "3",
    ]);
    let Some(Bench::Scaling(scaling)) = args.other else {
        panic!("scaling is a bench of its own");
    };
    assert_eq!(scaling.profile, "dev");
    assert_eq!(scaling.options, ["--repeats", "3"]);
    assert!(Line::try_parse_from(["bench", "--steps", "3", "scaling"]).is_err());
}

#[test]
fn speedup_passes_models_and_file_on() {
    let line = [
        "bench",
        "speedup",
        "--models",
        "resnet18,unet",
        "--json",
        "rows.json",
        "--",
        "--tiny",
    ];
    let Some(Bench::Speedup(speedup)) = parse(&line).other else {
        panic!("speedup is a bench of its own");
    };
    assert_eq!(speedup.profile, "release");
    assert_eq!(
        speedup.program_options(),
        ["--tiny", "--models", "resnet18,unet", "--json", "rows.json"]
    );
}

#[test]
fn the_job_is_built_once_with_the_features_of_all_devices() {
    assert_eq!(
        build_command(
            JOB,
            &[Device::Wgpu, Device::Tch, Device::TchCuda],
            "release"
        )
        .to_string(),
        "cargo build --no-default-features --message-format json-render-diagnostics \
         --profile release --package burn-compress-examples \
         --bin prune_quantize_distill --features tch,wgpu"
    );
}

#[test]
fn the_job_gets_steps_only_when_they_are_given() {
    let args = |line: &[&str]| -> Vec<String> {
        parse(line)
            .job_command(Path::new("job"), Device::Wgpu, 2, Path::new("r.json"))
            .get_args()
            .map(|arg| arg.to_string_lossy().into_owned())
            .collect()
    };
    assert_eq!(
        args(&["bench"]),
        [
            "--device", "wgpu", "--seed", "2", "--json", "r.json", "--figure", "r.svg"
        ]
    );
    assert_eq!(args(&["bench", "--steps", "20"])[4..6], ["--steps", "20"]);
}

#[test]
fn the_executable_is_read_from_the_messages_of_cargo() {
    let messages = concat!(
        r#"{"reason":"compiler-artifact","target":{"name":"burn"},"executable":null}"#,
        "\nnot a message\n",
        r#"{"target":{"name":"prune_quantize_distill"},"executable":"dir/job"}"#,
    );
    assert_eq!(executable(JOB, messages), Some(PathBuf::from("dir/job")));
    assert_eq!(executable(SCALING, messages), None);
    assert_eq!(executable(JOB, ""), None);
}

#[test]
fn rows_hold_medians_and_the_largest_error() {
    let measured = [
        Measured {
            device: Device::Flex,
            runs: [report_of(90.0, 1.0, 1e-7), report_of(80.0, 2.0, 3e-7)].concat(),
            seconds: vec![10.0, 30.0, 14.0],
        },
        Measured {
            device: Device::Wgpu,
            runs: report_of(70.0, 3.0, 0.0),
            seconds: vec![7.0],
        },
    ];
    let rows = rows(&measured).unwrap();
    assert_eq!((rows[0].device, rows[0].runs), ("flex", 2));
    assert_eq!(rows[0].accuracy.small, 85.0);
    assert_eq!(rows[0].latency_ratio, LatencyRatio { b1: 1.5, b64: 4.0 });
    assert_eq!(rows[0].max_relative_error, 3e-7);
    assert_eq!((rows[0].wall_seconds, rows[0].wall_ratio), (14.0, 1.0));
    assert_eq!((rows[1].wall_seconds, rows[1].wall_ratio), (7.0, 0.5));

    let shown = table(&rows).to_string();
    assert_eq!(shown.lines().count(), 4);
    assert!(
        shown.contains("| wgpu   |    1 |   98.00 |       70.00 |"),
        "{shown}"
    );
}

#[test]
fn a_report_that_cannot_be_compared_is_refused() {
    assert!(report("{}").is_err());
    assert!(report(r#"{"runs":[]}"#).is_err());
    let error = report(r#"{"runs":[{"accuracy":{"dense":1.0}}]}"#).unwrap_err();
    assert!(format!("{error:#}").contains("simulated"));
}

#[test]
fn onnx_is_built_with_the_runtime() {
    let line = ["bench", "onnx", "--models", "digits", "--json", "rows.json"];
    let Some(Bench::Onnx(models)) = parse(&line).other else {
        panic!("onnx is a bench of its own");
    };
    assert_eq!(
        models.program_options(),
        ["--models", "digits", "--json", "rows.json"]
    );
    let build = build_with(ONNX, &["flex", "ort"], "release").to_string();
    assert!(
        build.ends_with("--bin bench_onnx --features flex,ort"),
        "{build}"
    );
}
