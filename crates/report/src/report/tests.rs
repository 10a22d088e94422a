use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, Linear, LinearConfig};
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor};
use burn_compress_core::{
    CalibrationEntry, DummyInput, Grid, IntegerType, Mask, Masks, QuantDtype, QuantScheme,
    Quantization, StepRecord, Target, TargetId,
};
use burn_compress_speedup::{ModelSpeedup, Quartiles};
use roxmltree::{Document, Node, ParsingOptions};

use super::*;
use crate::ReportError;

#[derive(Module, Debug)]
struct Net {
    stem: Conv2d,
    norm: BatchNorm,
    head: Linear,
}

impl Net {
    fn new() -> Self {
        let device = Device::flex();
        device.seed(7);
        Self {
            stem: Conv2dConfig::new([1, 4], [3, 3]).init(&device),
            norm: BatchNormConfig::new(4).init(&device),
            head: LinearConfig::new(4, 2).init(&device),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<2> {
        let x = relu(self.norm.forward(self.stem.forward(x)));
        self.head.forward(x.mean_dim(3).mean_dim(2).flatten(1, 3))
    }
}

fn dummy_input() -> DummyInput<Net> {
    let images = Tensor::<4>::ones([1, 1, 4, 4], &Device::flex());
    DummyInput::new(images, |net: &Net, x| net.forward(x))
}

fn target(path: &str) -> TargetId {
    path.parse().unwrap()
}

/// Channel 1 of 4 is masked.
fn masks() -> Masks {
    let mask = |inner: usize, shape: &[usize]| {
        let values = [1.0, 0.0, 1.0, 1.0].iter();
        let values = values.flat_map(|value| vec![*value; inner]).collect();
        Mask::new(values, shape.to_vec()).unwrap()
    };
    let vectors = ["stem.bias", "norm.gamma", "norm.beta"];
    let vectors = vectors.map(|path| (target(path), mask(1, &[4])));
    let weight = (target("stem.weight"), mask(9, &[4, 1, 3, 3]));
    std::iter::once(weight).chain(vectors).collect()
}

fn calibration() -> Calibration {
    let state = Quantization::of(QuantDtype::INT8, QuantScheme::Symmetric);
    let int8 = CalibrationEntry {
        enabled: true,
        scale: Some(vec![0.01]),
        zero_point: Some(vec![0.0]),
        minimum: Some(vec![-1.0]),
        maximum: Some(vec![1.25]),
        grid: Grid::per_tensor(2),
        ..state.to_calibration().unwrap()
    };
    let bias = CalibrationEntry {
        dtype: IntegerType::Int32,
        grid: Grid::per_tensor(1),
        minimum: None,
        maximum: None,
        ..int8.clone()
    };
    Calibration::from([
        (target("head.weight"), int8),
        (TargetId::new("head", Target::param("bias")), bias),
    ])
}

fn history(steps: usize) -> History {
    let record = |step: usize| StepRecord {
        step,
        loss: 2.0 / step as f64,
        task_loss: 1.0 / step as f64,
        learning_rate: 1e-3,
        sparsity: step as f64 / (2 * steps) as f64,
    };
    History {
        steps: (1..=steps).map(record).collect(),
        evaluations: (1..=steps.div_ceil(50)).map(|n| (50 * n, 90.0)).collect(),
    }
}

fn sensitivity() -> Sensitivity {
    let point = |sparsity: f64, removed: usize, loss: f64| {
        serde_json::json!({
            "sparsity": sparsity, "removed": removed,
            "measured": {"loss": loss, "metric": 97.5},
        })
    };
    let json = serde_json::json!({
        "dense": {"loss": 0.5, "metric": 97.5},
        "sparsities": [0.25, 0.5],
        "bits": [8],
        "batches": 2,
        "units": [{
            "layers": ["stem"], "channels": 4, "parts": 1,
            "points": [point(0.25, 1, 0.625), point(0.5, 2, 12.0)],
        }],
        "layers": [{
            "layer": "head",
            "points": [{"bits": 8, "measured": {"loss": null, "metric": null}}],
        }],
        "settings": serde_json::to_value(burn_compress_pruning::PruningSettings::default()).unwrap(),
        "costs": null,
        "fingerprint": "",
    });
    serde_json::from_value(json).unwrap()
}

/// A report with everything, and names that HTML would take for its own.
fn report(steps: usize) -> Report {
    let history = history(steps);
    let compressed = Compressed::from_parts(Net::new(), &masks(), &calibration(), history).unwrap();
    let with_run = Report::new("Digits & <script>alert(1)</script>")
        .with_metric_name("accuracy < 100 \"%\"")
        .with_run(&compressed)
        .unwrap();
    let speedup = ModelSpeedup::new(compressed, dummy_input());
    let times = |median: f64| Quartiles {
        lower: 0.9 * median,
        median,
        upper: 1.5 * median,
    };
    let latency = Latency {
        dense: times(2e-3),
        small: times(5e-4),
        rounds: 31,
    };
    let mut report = with_run
        .with_speedup(&speedup.speedup_model().unwrap())
        .with_plan(&speedup.plan().unwrap())
        .with_sensitivity(&sensitivity())
        .with_latency("batch of <1>", latency)
        .with_fact("data \u{1b}[1m", "https://example.org/?a=1&b=2")
        .with_seed(3)
        .with_platform(Platform::new("flex"));
    report.warnings = Some(vec!["a <b>bold</b> warning".to_string()]);
    report
}

fn named<'a, 'i>(node: Node<'a, 'i>, name: &str) -> Vec<Node<'a, 'i>> {
    let nodes = node.descendants();
    nodes.filter(|node| node.has_tag_name(name)).collect()
}

fn texts(node: Node<'_, '_>) -> String {
    let texts = node.descendants().filter(Node::is_text);
    texts.filter_map(|text| text.text()).collect()
}

/// The page as XML, which it is written as.
fn checked(page: &str) {
    let options = ParsingOptions {
        allow_dtd: true,
        ..ParsingOptions::default()
    };
    let document = Document::parse_with_options(page, options).unwrap();
    let root = document.root_element();
    for svg in named(root, "svg") {
        assert_eq!(svg.attribute("role"), Some("img"));
        let elements: Vec<Node<'_, '_>> = svg.children().filter(Node::is_element).collect();
        for (node, name) in elements.iter().zip(["title", "desc"]) {
            assert!(node.has_tag_name(name) && !texts(*node).trim().is_empty());
        }
        assert!(svg.ancestors().any(|node| node.has_tag_name("figure")));
    }
    for figure in named(root, "figure") {
        assert!(!named(figure, "svg").is_empty());
        let [caption] = named(figure, "figcaption")[..] else {
            panic!("a figure without a caption");
        };
        assert!(!texts(caption).is_empty());
        let [table] = named(figure, "table")[..] else {
            panic!("a figure without a table");
        };
        assert!(!named(table, "td").is_empty());
    }
    for table in named(root, "table") {
        let columns = named(named(table, "thead")[0], "th").len();
        assert_eq!(named(table, "caption").len(), 1);
        for row in named(named(table, "tbody")[0], "tr") {
            assert_eq!(row.children().filter(Node::is_element).count(), columns);
        }
    }
    let ids: Vec<&str> = root
        .descendants()
        .filter_map(|node| node.attribute("id"))
        .collect();
    for node in root.descendants().filter(Node::is_element) {
        for attribute in node.attributes() {
            let value = attribute.value();
            match attribute.name() {
                "href" => {
                    let inside = value.strip_prefix('#').is_some_and(|id| ids.contains(&id));
                    assert!(inside || value == "data:,", "{value}");
                }
                "src" | "srcset" | "xlink:href" | "style" => panic!("{attribute:?}"),
                name => assert!(!name.starts_with("on"), "{attribute:?}"),
            }
        }
        assert!(!["script", "iframe", "img", "object"].contains(&node.tag_name().name()));
    }
    let styles: String = named(root, "style").into_iter().map(texts).collect();
    assert!(!styles.contains("url(") && !styles.contains("@import"));
}

#[test]
fn a_page_is_well_formed_and_reads_nothing_from_outside() {
    let page = report(460).html().unwrap();
    checked(&page);
    let sections = [
        "Summary",
        "Warnings",
        "The run",
        "Layers before and after",
        "Quantizers",
        "Latency",
        "Plan of the cut",
        "Sensitivity",
    ];
    for section in sections {
        assert_eq!(
            page.matches(&format!("\">{section}</h2>")).count(),
            1,
            "{section}"
        );
    }
    assert_eq!(page.matches("<figure>").count(), 6);
    // Five curves, three drawings of layers, one of parameter ranges, one each of the rest.
    assert_eq!(page.matches("<svg").count(), 5 + 3 + 1 + 3);
}

#[test]
fn names_are_escaped_wherever_they_are_shown() {
    let page = report(3).html().unwrap();
    assert!(!page.contains("<script") && !page.contains("<b>"));
    assert!(page.contains("Digits &#38; &#60;script&#62;"));
    assert!(page.contains("\naccuracy &lt; 100 &quot;%&quot;\n"));
    assert!(!page.contains('\u{1b}') && page.contains("data \u{fffd}[1m"));
}

#[test]
fn sections_are_there_for_what_the_report_is_given() {
    let page = Report::new("empty").html().unwrap();
    checked(&page);
    assert_eq!(page.matches("<h2").count(), 1);
    let page = Report::new("untrained")
        .with_history(&History::default())
        .html();
    assert!(page.unwrap().contains("nothing was trained"));
    let plan = ModelSpeedup::from_masks(Net::new(), dummy_input(), &masks()).unwrap();
    let plan = Report::new("plan").with_plan(&plan.plan().unwrap());
    let page = plan.html().unwrap();
    checked(&page);
    assert!(page.contains("parameters, planned") && !page.contains("id=\"layers\""));
}

#[test]
fn the_page_has_the_numbers_of_the_layers() {
    let page = report(3).html().unwrap();
    // 2 x 2 places; nine weights and a bias a channel.
    let expected = [
        "Conv2d",
        "4×1×3×3",
        "3×1×3×3",
        "",
        "25.0 %",
        "4",
        "3",
        "144",
        "108",
        "160",
        "120",
        "120",
    ];
    let mut rows = page
        .lines()
        .filter(|line| line.contains("<th scope=\"row\">stem</th>"));
    let row = rows.find(|line| line.contains("Conv2d")).unwrap();
    let cells = row.split("</td>").filter_map(|cell| cell.rsplit_once('>'));
    let cells: Vec<&str> = cells.map(|(_, cell)| cell).collect();
    assert_eq!(cells[..expected.len()], expected);
}

#[test]
fn long_runs_and_many_layers_stay_below_a_megabyte() {
    let mut report = report(100_000);
    let cut = report.cut.as_mut().unwrap();
    let layer = cut.report.layers[0].clone();
    cut.report.layers = vec![layer; 200];
    let page = report.html().unwrap();
    checked(&page);
    assert!(page.len() < 1_000_000, "{}", page.len());
    assert!(page.contains("drawing tall"));
}

#[test]
fn files_are_written_whole_and_are_the_same_each_time() {
    let folder = tempfile::tempdir().unwrap();
    let (page, curves) = (folder.path().join("x.html"), folder.path().join("x.svg"));
    let report = report(3);
    report.save(&page).unwrap();
    assert_eq!(
        std::fs::read_to_string(&page).unwrap(),
        report.html().unwrap()
    );
    report.save_curves(&curves).unwrap();
    let svg = std::fs::read_to_string(&curves).unwrap();
    assert!(svg.contains("xmlns=") && svg.ends_with("</svg>\n"));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);

    let error = report.save(folder.path()).unwrap_err();
    assert!(matches!(error, ReportError::File { .. }));
    let empty = Report::new("empty");
    for empty in [empty.clone(), empty.with_history(&History::default())] {
        assert!(matches!(empty.curves(), Err(ReportError::NoSteps)));
    }
}

#[test]
fn json_gives_back_the_same_page() {
    let report = report(3);
    let json = serde_json::to_string(&report).unwrap();
    let read: Report = serde_json::from_str(&json).unwrap();
    assert_eq!(read.html().unwrap(), report.html().unwrap());
    let other = json.replacen("\"title\"", "\"heading\"", 1);
    assert!(serde_json::from_str::<Report>(&other).is_err());
}
