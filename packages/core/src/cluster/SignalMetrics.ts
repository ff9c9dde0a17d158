/** Metrics of the signals between servers. Labels are topics and fixed words, never names of hosts. */
import { Metric } from "effect"

/** Texts that were called, by topic. */
export const sentTotal = Metric.counter("prism_signals_sent_total", {
  description: "Signals that this server sent to the others, by topic.",
  incremental: true
})

/** Texts of others that were heard, by topic. */
export const heardTotal = Metric.counter("prism_signals_heard_total", {
  description: "Signals of other servers that this one heard, by topic.",
  incremental: true
})

/** Signals whose words were too many. */
export const allTotal = Metric.counter("prism_signals_all_total", {
  description: "Signals that said that anything may have changed, since what had was too much to name, by topic.",
  incremental: true
})

/** 1 while what others send arrives. */
export const hearing = Metric.gauge("prism_signals_hearing", {
  description:
    "1 while signals of other servers arrive; 0: they are waited for in vain, and each look takes its own time."
})

/** Lines that were opened. */
export const linesTotal = Metric.counter("prism_signals_lines_total", {
  description: "Connections that were opened to hear signals of other servers.",
  incremental: true
})

/** 1 while what others change cannot be read. */
export const stale = Metric.gauge("prism_memory_stale", {
  description:
    "1 while what other servers change cannot be read, so that what is kept in memory may be out of date, by topic."
})
