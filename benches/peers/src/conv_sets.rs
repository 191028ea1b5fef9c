//! Shapes of convolutions, by class of use.

use clap::ValueEnum;
use serde::Deserialize;
use serde_json::Value;

use crate::conv::{Convolve, Direction, Order};
use crate::sets::Operands;

/// Classes of shapes.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Set {
    /// The distinct layers of ResNet-50
    Resnet50,
    /// The distinct depthwise layers of EfficientNet-Lite0
    Depthwise,
    /// The distinct layers of EfficientNet-Lite0
    Efficientnet,
    /// The distinct layers of TransNetV2: three dimensions
    Transnet,
    /// DeepBench's training set, with its own batches
    Deepbench,
    /// The first layers of ResNet-50 and EfficientNet-Lite0
    FirstLayer,
    /// Long sequences: a WaveNet and a temporal convolutional network
    Conv1d,
    /// Kernels whose elements lie apart: DeepLab v3's pyramid at rates 6, 12 and 18 (Chen et al. 2017, 513 x 513 at output stride 16) and depthwise at rate 2, a WaveNet's widest layer (van den Oord et al. 2016)
    Dilated,
}

#[derive(Deserialize)]
struct Net {
    layers: Vec<Value>,
}

#[derive(Deserialize)]
struct DeepBench {
    sets: std::collections::BTreeMap<String, Vec<Value>>,
}

/// A layer as the files write it: DeepBench in small letters, the networks in large ones.
fn layer(value: &Value) -> Option<Convolve> {
    let one = |names: [&str; 2]| names.iter().find_map(|name| value.get(name)?.as_u64()).map(|n| n as usize);
    let list = |name: &str| -> Option<Vec<usize>> {
        value.get(name)?.as_array()?.iter().map(|n| n.as_u64().map(|n| n as usize)).collect()
    };
    if !value.get("op")?.as_str()?.eq_ignore_ascii_case("conv") {
        return None;
    }
    Some(Convolve {
        direction: Direction::Forward,
        order: Order::Nhwc,
        format: Operands::F32,
        batch: one(["N", "n"])?,
        c_in: one(["C", "c"])?,
        c_out: one(["K", "k"])?,
        groups: one(["groups", "g"])?,
        input: list("in")?,
        output: list("out")?,
        kernel: list("kernel")?,
        stride: list("stride")?,
        low: list("pad")?,
        high: list("pad_r")?,
        dilation: list("dilation")?,
    })
}

impl Set {
    /// The cases, forward of f32; networks with an image.
    pub fn cases(self) -> Vec<Convolve> {
        let net = |text: &str| -> Vec<Convolve> {
            let net: Net = serde_json::from_str(text).expect("the file is ours");
            net.layers.iter().filter_map(layer).collect()
        };
        let resnet50 = || net(include_str!("../../shapes/resnet50.json"));
        let efficientnet = || net(include_str!("../../shapes/efficientnet_lite0.json"));
        match self {
            Set::Resnet50 => resnet50(),
            Set::Efficientnet => efficientnet(),
            Set::Depthwise => efficientnet().into_iter().filter(|case| case.groups > 1).collect(),
            Set::FirstLayer => {
                resnet50().into_iter().chain(efficientnet()).filter(|case| case.c_in == 3).collect()
            }
            Set::Transnet => net(include_str!("../../shapes/transnetv2.json")),
            Set::Deepbench => {
                let file: DeepBench = serde_json::from_str(include_str!("../../shapes/deepbench_conv.json"))
                    .expect("the file is ours");
                file.sets["training_set"].iter().filter_map(layer).collect()
            }
            Set::Conv1d => vec![causal(64, 16000, 2, 4), causal(256, 1000, 3, 2)],
            Set::Dilated => {
                let image = |c_in, size, dilation| {
                    Convolve::of([c_in, 256, 1], &[size; 2], &[3; 2], &[1; 2], &[dilation; 2])
                };
                vec![
                    image(2048, 33, 6),
                    image(2048, 33, 12),
                    image(2048, 33, 18),
                    image(256, 65, 2),
                    Convolve::of([960, 960, 960], &[33; 2], &[3; 2], &[1; 2], &[2; 2]),
                    causal(64, 16000, 2, 512),
                ]
            }
        }
    }
}

/// A sequence of which a position meets itself and those before.
fn causal(channels: usize, length: usize, kernel: usize, dilation: usize) -> Convolve {
    let case = Convolve::of([channels, channels, 1], &[length], &[kernel], &[1], &[dilation]);
    Convolve { low: vec![(kernel - 1) * dilation], high: vec![0], ..case }
}

/// Cases with operands of `format`, each once; with `batch` images if they come with one.
pub fn stored(
    cases: Vec<Convolve>,
    direction: Direction,
    order: Order,
    format: Operands,
    batch: usize,
) -> Vec<Convolve> {
    let mut seen = std::collections::HashSet::new();
    let turned = cases.into_iter().map(|case| Convolve {
        direction,
        order,
        format,
        batch: if case.batch == 1 { batch } else { case.batch },
        ..case
    });
    turned.filter(|case| seen.insert(case.clone())).collect()
}

/// `64-128 @56x56 k3x3 s2x2 d1x1 g1 n1`: the stride, the dilation, groups and images may be left out.
pub fn parse_shape(text: &str) -> Result<Convolve, String> {
    let parse = || {
        let mut words = text.split_whitespace();
        let (c_in, c_out) = words.next()?.split_once('-')?;
        let (mut input, mut kernel, mut stride, mut dilation) = (vec![], vec![], vec![], vec![]);
        let (mut groups, mut batch) = (1, 1);
        for word in words {
            let (what, values) = word.split_at_checked(1)?;
            let values: Vec<usize> = values.split('x').map(str::parse).collect::<Result<_, _>>().ok()?;
            match (what, &values[..]) {
                ("@", _) => input = values,
                ("k", _) => kernel = values,
                ("s", _) => stride = values,
                ("d", _) => dilation = values,
                ("g", &[n]) => groups = n,
                ("n", &[n]) => batch = n,
                _ => return None,
            }
        }
        let ones = vec![1; input.len()];
        let [stride, dilation] =
            [stride, dilation].map(|given| if given.is_empty() { ones.clone() } else { given });
        let counts = [kernel.len(), stride.len(), dilation.len()];
        let channels = [c_in.parse().ok()?, c_out.parse().ok()?, groups];
        let given = [&channels[..], &[batch], &input, &kernel, &stride, &dilation].concat();
        let fits = counts == [input.len(); 3] && (1..=3).contains(&input.len()) && !given.contains(&0);
        let whole = fits && channels[0] % groups == 0 && channels[1] % groups == 0;
        whole.then(|| Convolve { batch, ..Convolve::of(channels, &input, &kernel, &stride, &dilation) })
    };
    parse().ok_or_else(|| "a shape is such as 64-128 @56x56 k3x3 s2x2 d1x1 g1 n1".into())
}
