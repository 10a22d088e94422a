use super::*;

fn measured(loss: f64, metric: f64) -> Measured {
    Measured::new(loss, Some(metric))
}

pub(crate) fn result() -> Sensitivity {
    let point = |sparsity, removed, measured| SparsityPoint {
        sparsity,
        removed,
        measured,
    };
    Sensitivity {
        dense: measured(0.5, 97.5),
        sparsities: vec![0.5, 0.875],
        bits: vec![8, 2],
        batches: 3,
        units: vec![
            UnitSensitivity {
                layers: vec!["stem".to_string(), "block.conv2".to_string()],
                channels: 8,
                parts: 1,
                points: vec![
                    point(0.5, 4, measured(0.75, 95.0)),
                    point(0.875, 7, measured(12.0 + 1.0 / 3.0, 20.0)),
                ],
            },
            UnitSensitivity {
                layers: vec!["block.conv1".to_string()],
                channels: 16,
                parts: 1,
                points: vec![point(0.5, 8, measured(0.5 - 1e-6, 97.5))],
            },
        ],
        layers: vec![LayerSensitivity {
            layer: "head".to_string(),
            points: vec![
                BitsPoint {
                    bits: 8,
                    measured: measured(0.5, 97.5),
                },
                BitsPoint {
                    bits: 2,
                    measured: measured(f64::NAN, f64::INFINITY),
                },
            ],
        }],
        ..Sensitivity::default()
    }
}

#[test]
fn the_table_has_all_changes() {
    let expected = "\
as it is: loss 0.5, metric 97.5, over 3 batches
5 of 6 points

change of the loss
pruned                  channels  50 %      87.5 %
stem and 1 coupled      8         +0.2500   +11.8
block.conv1             16        -1.0e-6

change of the metric
pruned                  channels  50 %      87.5 %
stem and 1 coupled      8         -2.50     -77.5
block.conv1             16        0

change of the loss
quantized  8 bits  2 bits
head       0       not finite

change of the metric
quantized  8 bits  2 bits
head       0       not finite
";
    let squeeze = |text: &str| {
        let lines = text.lines();
        let words = lines.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
        words.collect::<Vec<_>>()
    };
    assert_eq!(squeeze(&result().to_string()), squeeze(expected));
}

#[test]
fn a_file_gives_back_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sensitivity.json");
    result().save(&path).unwrap();
    assert_eq!(Sensitivity::load(&path).unwrap(), result());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);

    let error = Sensitivity::load(folder.path().join("none")).unwrap_err();
    assert!(matches!(
        error.downcast_ref(),
        Some(SensitivityError::File { .. })
    ));
    std::fs::write(&path, "{}").unwrap();
    let error = Sensitivity::load(&path).unwrap_err().to_string();
    assert!(error.contains("missing field"), "{error}");
    let mut other = result();
    other.units[0].points[0].sparsity = 0.25;
    other.save(&path).unwrap();
    let error = Sensitivity::load(&path).unwrap_err().to_string();
    assert!(error.contains("the sparsities of `stem`"), "{error}");
    assert!(result().save(folder.path()).is_err());
}

#[test]
fn the_figure_has_every_name_and_number() {
    let svg = result().figure("Sensitivity & more").unwrap();
    for text in [
        "Sensitivity &amp; more",
        "pruned: change of the loss",
        "quantized: change of the loss",
        "stem and 1 coupled",
        "block.conv1",
        "87.5 %",
        "+11.8",
        "-1.0e-6",
        "2 bits",
        "not finite",
    ] {
        assert!(svg.contains(&format!("\n{text}\n")), "{text} in {svg}");
    }
    // The paper, and a cell for each change that is not small beside the largest.
    assert_eq!(svg.matches("<rect").count(), 1 + 3);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sensitivity.svg");
    result().save_figure("x", &path).unwrap();
    assert!(
        std::fs::read_to_string(&path)
            .unwrap()
            .ends_with("</svg>\n")
    );
    assert!(Sensitivity::default().figure("empty").is_ok());
}

#[test]
fn forwards_and_points_are_counted() {
    let result = result();
    assert_eq!((result.measured(), result.total()), (5, 6));
    assert_eq!((result.forwards(), result.is_complete()), (18, false));
    assert_eq!(result.next_sparsity(), Some((1, 0.875)));
    assert_eq!(result.next_bits(), None);
}

proptest::proptest! {
    /// Nine digits come back from JSON as they were, which more would not.
    #[test]
    fn numbers_come_back_from_json(value in -1e12..1e12_f64) {
        let measured = Measured::new(value, Some(value / 1e9));
        let text = serde_json::to_string(&measured).unwrap();
        proptest::prop_assert_eq!(serde_json::from_str::<Measured>(&text).unwrap(), measured);
    }
}
