package main

import "strings"

// Encodings that attacks hide behind, and card numbers.

// decode undoes one layer of URL encoding and the letters' case, so that %3CScript is found as <script. One layer
// only: that is what the upstream will undo. The result need not be UTF-8.
func decode(text string) string {
	decoded := make([]byte, 0, len(text))
	for at := 0; at < len(text); at++ {
		char := text[at]
		switch {
		case char == '+':
			char = ' '
		case char == '%' && at+2 < len(text) && isHex(text[at+1]) && isHex(text[at+2]):
			char = hexValue(text[at+1])<<4 | hexValue(text[at+2])
			at += 2
		}
		decoded = append(decoded, lowerByte(char))
	}
	return string(decoded)
}

// lower leaves everything but ASCII as it is, unlike strings.ToLower, which makes a k of the Kelvin sign.
func lower(text string) string {
	lowered := []byte(text)
	for at, char := range lowered {
		lowered[at] = lowerByte(char)
	}
	return string(lowered)
}

func lowerByte(char byte) byte {
	if 'A' <= char && char <= 'Z' {
		return char + 'a' - 'A'
	}
	return char
}

func isDigit(char byte) bool { return '0' <= char && char <= '9' }

func isHex(char byte) bool {
	return isDigit(char) || 'a' <= lowerByte(char) && lowerByte(char) <= 'f'
}

func hexValue(char byte) byte {
	if isDigit(char) {
		return char - '0'
	}
	return lowerByte(char) - 'a' + 10
}

// What a card number looks like; 9 stands for any digit.
var cardNumbers = []string{"9999999999999999", "9999-9999-9999-9999"}

// maskCardNumbers puts * in place of all but the last four digits of each card number.
func maskCardNumbers(text string) string {
	var masked strings.Builder
	copied := 0 // how much of the text is in masked
	at := 0     // never behind a digit: no card number begins there
	for at < len(text) {
		length := cardNumber(text[at:])
		if length == 0 {
			at += max(countDigits(text[at:]), 1)
			continue
		}
		lastFour := at + length - 4
		masked.WriteString(text[copied:at])
		masked.WriteString(strings.Map(maskDigit, text[at:lastFour]))
		copied = lastFour
		at += length
	}
	masked.WriteString(text[copied:])
	return masked.String()
}

func maskDigit(char rune) rune {
	if char == '-' {
		return char
	}
	return '*'
}

// cardNumber returns the length of the card number that the text starts with, 0 when it does not. A longer row of
// digits is none.
func cardNumber(text string) int {
	for _, shape := range cardNumbers {
		if hasShape(text, shape) && countDigits(text[len(shape):]) == 0 {
			return len(shape)
		}
	}
	return 0
}

func hasShape(text, shape string) bool {
	if len(text) < len(shape) {
		return false
	}
	for at := range len(shape) {
		fits := text[at] == shape[at]
		if shape[at] == '9' {
			fits = isDigit(text[at])
		}
		if !fits {
			return false
		}
	}
	return true
}

func countDigits(text string) int {
	count := 0
	for count < len(text) && isDigit(text[count]) {
		count++
	}
	return count
}
