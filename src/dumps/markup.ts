/**
 * What web pages, chats and loggers put around or into the characters of a line: HTML tags and
 * entities, escapes of Markdown and JSON, characters without width. Every pattern looks at a bounded
 * piece of the line.
 */

const TAG =
  /<\/?(?:a|article|b|blockquote|body|br|code|dd|div|dl|dt|em|font|h[1-6]|hr|html|i|li|ol|p|pre|samp|section|small|span|strong|table|tbody|td|th|tr|tt|u|ul)(?:\s[^<>]{0,200})?\/?>/gi;
/** Tags that end a line of text. */
const BREAK = /^<\/?(?:article|blockquote|br|dd|div|dt|h[1-6]|hr|li|p|pre|section|table|tr)\b/i;

const ENTITY = /&(?:#(\d{1,6})|#x([0-9a-f]{1,5})|(amp|apos|gt|lt|nbsp|quot|equals|ast));/gi;
const NAMED: Readonly<Record<string, string>> = {
  amp: '&',
  apos: "'",
  gt: '>',
  lt: '<',
  nbsp: '\u00a0',
  quot: '"',
  equals: '=',
  ast: '*',
};

function decodeEntities(line: string): string {
  return line.replaceAll(ENTITY, (whole, decimal?: string, hexadecimal?: string, name?: string) => {
    if (name !== undefined) return NAMED[name.toLowerCase()] as string;
    const code = decimal === undefined ? Number.parseInt(hexadecimal as string, 16) : Number(decimal);
    return code <= 0x10_ffff ? String.fromCodePoint(code) : whole;
  });
}

const INVISIBLE = /[\u00ad\u200b-\u200d\u2060\ufeff]/g;

/** The text of a line; it has line breaks where the markup breaks the line. */
export function withoutMarkup(line: string): string {
  let text = line;
  if (text.includes('&')) {
    text = decodeEntities(text);
    // A page that shows source of a page.
    if (text.includes('&')) text = decodeEntities(text);
  }
  if (text.includes('<')) text = text.replaceAll(TAG, (tag) => (BREAK.test(tag) ? '\n' : ' '));
  if (text.includes('\\')) {
    text = text
      .replaceAll(/\\[nr]/g, '\n')
      .replaceAll('\\t', ' ')
      .replaceAll('\\', '');
  }
  return text.replaceAll(INVISIBLE, '');
}
