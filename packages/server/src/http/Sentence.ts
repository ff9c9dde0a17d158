/**
 * Makes a sentence of what an error says, for the `detail` of a problem. A name
 * is never made another one by it: one at the beginning keeps its first letter,
 * and one at the end, with its own dot, gets no second.
 */

/** A full name or an address, rather than a word. */
const isName = (word: string): boolean => /[.:/@]/.test(word) && !/^[A-Za-z]+[.:]$/.test(word)

export const sentence = (text: string): string => {
  const first = text.slice(0, Math.max(0, text.indexOf(" ")) || text.length)
  const begun = isName(first) ? text : `${text.charAt(0).toUpperCase()}${text.slice(1)}`
  return begun.endsWith(".") ? begun : `${begun}.`
}
