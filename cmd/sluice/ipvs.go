package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"sluice.dev/sluice/ipvs"
)

// ipvsCommand lists the kernel's table as ipvsadm does.
func ipvsCommand() *cobra.Command {
	var list, numeric bool
	cmd := &cobra.Command{
		Use:   "ipvs",
		Short: "List the kernel's virtual servers, exactly as ipvsadm does",
		Long: "List the kernel's virtual servers and their destinations, byte for byte as ipvsadm -L -n.\n" +
			"The whole table is shown, not only what Sluice made. Numbers are shown as numbers unless -n=false asks for names,\n" +
			"as ipvsadm -L does. Nothing can be changed here: Services decide what is in the table.",
		Example: "  sluice ipvs -L -n\n  sluice ipvs -Ln\n  sluice ipvs -L -n=false",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !list {
				return fmt.Errorf("nothing to do; use `sluice ipvs -L -n` to list the table")
			}
			return listIPVS(cmd, numeric)
		},
	}
	cmd.Flags().BoolVarP(&list, "list", "L", false, "list the table")
	cmd.Flags().BoolVarP(&numeric, "numeric", "n", true, "show numbers, not names")
	return cmd
}

func listIPVS(cmd *cobra.Command, numeric bool) (err error) {
	handle, err := ipvs.Open(cmd.Context())
	if err != nil {
		return fmt.Errorf("open IPVS: %w", err)
	}
	defer func() { err = errors.Join(err, handle.Close()) }()
	listing, err := ipvs.ReadListing(cmd.Context(), handle)
	if err != nil {
		return fmt.Errorf("read IPVS: %w", err)
	}
	var style ipvs.Style
	if !numeric {
		if style.Names, err = ipvs.NewSystemNames(cmd.Context()); err != nil {
			return err
		}
	}
	return ipvs.WriteListing(cmd.OutOrStdout(), listing, style)
}
