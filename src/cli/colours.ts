/** Colours for people: only on a terminal, or where FORCE_COLOR asks for them; never with NO_COLOR. */
import pc from 'picocolors';

const { FORCE_COLOR, NO_COLOR } = process.env;
const isForced = FORCE_COLOR !== undefined && FORCE_COLOR !== '0';
const isPlain = NO_COLOR !== undefined && NO_COLOR !== '';

// A variable CI alone, which the package takes for a terminal, is no reason to write them into a log.
export const colours = pc.createColors(!isPlain && (isForced || process.stdout.isTTY === true));

/** Style of a drawn table: its borders and heads have colours only where text has. */
export const tableStyle = colours.isColorSupported ? {} : { head: [], border: [] };
