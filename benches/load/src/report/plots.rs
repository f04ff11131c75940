//! The growth curves as pictures.

use std::path::Path;

use anyhow::Result;

use super::picture::{Line, Picture};
use crate::{
    peer::PeerKind,
    record::{Figure, Figures, Results},
    workload::Workload,
};

/// One picture: a figure, or several, along a curve. Both axes are logarithmic, so that what grows in proportion is a
/// straight line, and what stays flat is a level one.
struct Plot {
    file: &'static str,
    title: &'static str,
    workload: Workload,
    along: &'static str,
    /// What is shown, what it is multiplied with, and its name where there are several.
    figures: &'static [(Figure, f64, &'static str)],
}

const PLOTS: &[Plot] = &[
    Plot {
        file: "throughput-by-viewers.svg",
        title: "Deliveries per second, in thousands",
        workload: Workload::GrowthViewers,
        along: "viewers of one agent",
        figures: &[(Figure::DeliveriesPerSecond, 1e-3, "")],
    },
    Plot {
        file: "cpu-by-viewers.svg",
        title: "Server CPU per delivery, µs",
        workload: Workload::GrowthViewers,
        along: "viewers of one agent",
        figures: &[(Figure::CpuPerMillionS, 1.0, "")],
    },
    Plot {
        file: "latency-by-viewers.svg",
        title: "From sending to arrival, p99, 64 events outstanding, ms",
        workload: Workload::GrowthViewers,
        along: "viewers of one agent",
        figures: &[(Figure::LatencyP99Ms, 1.0, "")],
    },
    Plot {
        file: "memory-by-viewers.svg",
        title: "Server memory under load, MiB",
        workload: Workload::GrowthViewers,
        along: "viewers of one agent",
        figures: &[(Figure::ServerMib, 1.0, "")],
    },
    Plot {
        file: "cost-by-agents.svg",
        title: "5,000 events per second in all, from more and more agents",
        workload: Workload::GrowthAgents,
        along: "agents",
        figures: &[
            (Figure::CpuPerMillionS, 1.0, "server CPU per event, µs"),
            (Figure::AckP99Ms, 1.0, "ack p99, ms"),
            (Figure::ServerMib, 1.0, "server memory, MiB"),
        ],
    },
    Plot {
        file: "cost-by-log-length.svg",
        title: "Cost per event, µs, in batches of 256",
        workload: Workload::GrowthLog,
        along: "events in the log",
        figures: &[(Figure::AppendUs, 1.0, "append"), (Figure::ReadUs, 1.0, "read anywhere")],
    },
];

/// Draws every plot whose curve was measured.
pub(super) fn draw(results: &Results, folder: &Path) -> Result<()> {
    for plot in PLOTS {
        let lines = plot.lines(results);
        if !lines.is_empty() {
            let picture = Picture { title: plot.title, along: plot.along, lines: &lines };
            picture.draw_logarithmic(&folder.join(plot.file))?;
        }
    }
    Ok(())
}

impl Plot {
    fn lines(&self, results: &Results) -> Vec<Line> {
        let several = self.workload.peers().len() > 1;
        let mut lines = Vec::new();
        for &peer in self.workload.peers() {
            let curve = results.curve(self.workload, peer);
            for &(figure, scale, name) in self.figures {
                // A logarithm has no place for nothing.
                let point = |(at, figures): &(u64, Figures)| {
                    let at = *at as f64;
                    Some((at, figures.get(figure)? * scale)).filter(|(_, value)| *value > 0.0)
                };
                let points: Vec<_> = curve.iter().filter_map(point).collect();
                if !points.is_empty() {
                    lines.push((if several { title(peer) } else { name.to_owned() }, points));
                }
            }
        }
        lines
    }
}

fn title(peer: PeerKind) -> String {
    peer.about().title.replace('*', "")
}
